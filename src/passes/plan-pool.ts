import type { Node } from '../ir/graph.js';
import { bindShape, bytesPerElement, elementCount, type DimBindings } from '../ir/type.js';
import type { EntryPass, PoolBuffer, PoolPlan } from './entry.js';
import { slotsOf } from './lifetimes.js';

/** Bytes needed from one epoch to another, both included. */
export type Span = Pick<PoolBuffer, 'bytes' | 'firstEpoch' | 'lastEpoch'>;

/**
 * Gives every transient value an offset in one static pool. Values whose lifetimes share an epoch get disjoint
 * bytes. Greedy by size: the largest first, each at the lowest offset that is free during its lifetime.
 */
export const planPool: EntryPass = {
  name: 'plan-pool',
  doc: 'give every transient buffer an offset in one static pool',
  run: (entry, { target }) => {
    const slots = slotsOf(entry, target.alignment);
    const { offsets, ...pool } = placeBuffers(slots, target.alignment);
    const buffers = slots.flatMap(({ values }, i) =>
      values.map((lifetime) => ({ ...lifetime, offset: offsets[i] ?? 0 })),
    );
    return { ...entry, pool: { ...pool, buffers } };
  },
};

export function bytesOf(node: Node, dims: DimBindings): number {
  return elementCount(bindShape(node.type.shape, dims)) * bytesPerElement[node.type.dtype];
}

export const alignUp = (bytes: number, alignment: number): number => Math.ceil(bytes / alignment) * alignment;

/** Places buffers, all of them multiples of `alignment` bytes; the offsets are in their order. */
export function placeBuffers(
  buffers: readonly Span[],
  alignment: number,
): { readonly offsets: readonly number[] } & Omit<PoolPlan, 'buffers'> {
  const placed: (Span & { readonly offset: number; readonly index: number })[] = [];
  const bySize = buffers.map((buffer, index) => ({ ...buffer, index })).sort((a, b) => b.bytes - a.bytes);
  for (const buffer of bySize) {
    const rivals = placed
      .filter((other) => other.firstEpoch <= buffer.lastEpoch && buffer.firstEpoch <= other.lastEpoch)
      .sort((a, b) => a.offset - b.offset);
    let offset = 0;
    for (const rival of rivals) {
      if (offset + buffer.bytes <= rival.offset) break;
      offset = Math.max(offset, alignUp(rival.offset + rival.bytes, alignment));
    }
    placed.push({ ...buffer, offset });
  }
  const offsets = new Array<number>(buffers.length).fill(0);
  for (const { index, offset } of placed) offsets[index] = offset;
  return {
    offsets,
    bytes: placed.reduce((end, buffer) => Math.max(end, buffer.offset + buffer.bytes), 0),
    lowerBound: maxLive(buffers),
  };
}

function maxLive(buffers: readonly Span[]): number {
  const change = new Map<number, number>();
  for (const { bytes, firstEpoch, lastEpoch } of buffers) {
    change.set(firstEpoch, (change.get(firstEpoch) ?? 0) + bytes);
    change.set(lastEpoch + 1, (change.get(lastEpoch + 1) ?? 0) - bytes);
  }
  let live = 0;
  let most = 0;
  for (const epoch of [...change.keys()].sort((a, b) => a - b)) {
    live += change.get(epoch) ?? 0;
    most = Math.max(most, live);
  }
  return most;
}
