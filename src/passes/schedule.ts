import { layoutOf } from './access.js';
import { endsStep, type EntryPass, type Kernel } from './entry.js';
import { levelsOf } from './levels.js';

/**
 * Orders kernels by barrier epoch: a kernel's epoch is one past the latest epoch of what it reads. That is the fewest
 * epochs any order can have, as each is a step of the longest chain of dependences. An append is the only kernel that
 * changes what another could read, and every reader reads the appended cache, so value dependences are all there are;
 * but the kernel that ends the step changes the position that all others may read, and has the last epoch to itself.
 */
export const schedule: EntryPass = {
  name: 'schedule',
  doc: 'order dispatches and set barrier epochs',
  run: (entry) => {
    const levels = levelsOf(entry.kernels, layoutOf(entry));
    const levelOf = (kernel: Kernel): number => levels.get(kernel) ?? 0;
    const last = Math.max(-1, ...entry.kernels.filter((kernel) => !endsStep(kernel)).map(levelOf));
    const epochOf = (kernel: Kernel): number => (endsStep(kernel) ? last + 1 : levelOf(kernel));
    const epochs = new Map(entry.kernels.map((kernel) => [kernel, epochOf(kernel)]));
    const kernels = [...entry.kernels].sort((a, b) => (epochs.get(a) ?? 0) - (epochs.get(b) ?? 0));
    return { ...entry, kernels, epochs };
  },
};
