import type { EntryPass } from './entry.js';
import { slotsOf } from './lifetimes.js';
import { placeBuffers } from './pool/place.js';

/**
 * Gives every transient value an offset in one static pool. Values whose lifetimes share an epoch get disjoint
 * bytes, but for a result that is written over an operand. The sizes are multiples of the target's alignment, and so
 * are the offsets.
 */
export const planPool: EntryPass = {
  name: 'plan-pool',
  doc: 'give every transient buffer an offset in one static pool',
  run: (entry, { target }) => {
    const { buffers: slots, ...pool } = placeBuffers(slotsOf(entry, target.alignment));
    const buffers = slots.flatMap(({ values, offset }) => values.map((value) => ({ ...value, offset })));
    return { ...entry, pool: { ...pool, buffers } };
  },
};
