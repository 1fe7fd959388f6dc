import { layoutOf } from './access.js';
import type { EntryPass } from './entry.js';
import { levelsOf } from './levels.js';

/**
 * Orders kernels by barrier epoch: a kernel's epoch is one past the latest epoch of what it reads. That is the fewest
 * epochs any order can have, as each is a step of the longest chain of dependences. An append is the only kernel that
 * changes what another could read, and every reader reads the appended cache, so value dependences are all there are.
 */
export const schedule: EntryPass = {
  name: 'schedule',
  doc: 'order dispatches and set barrier epochs',
  run: (entry) => {
    const epochs = levelsOf(entry.kernels, layoutOf(entry));
    const kernels = [...entry.kernels].sort((a, b) => (epochs.get(a) ?? 0) - (epochs.get(b) ?? 0));
    return { ...entry, kernels, epochs };
  },
};
