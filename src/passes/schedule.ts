import { CompilerBug } from '../diagnostic.js';
import type { Node } from '../ir/graph.js';
import { isLeaf } from '../ir/graph.js';
import { kernelSources, layoutOf } from './access.js';
import type { EntryPass, Kernel } from './entry.js';

/**
 * Orders kernels by barrier epoch: a kernel's epoch is one past the latest epoch of what it reads. That is the fewest
 * epochs any order can have, as each is a step of the longest chain of dependences. An append is the only kernel that
 * changes what another could read, and every reader reads the appended cache, so value dependences are all there are.
 */
export const schedule: EntryPass = {
  name: 'schedule',
  doc: 'order dispatches and set barrier epochs',
  run: (entry) => {
    const layout = layoutOf(entry.graph);
    const epochs = new Map<Kernel, number>();
    const epochOf = new Map<Node, number>();
    for (const kernel of entry.kernels) {
      let epoch = 0;
      for (const source of kernelSources(kernel, layout)) {
        if (isLeaf(source)) continue;
        const made = epochOf.get(source);
        if (made === undefined)
          throw new CompilerBug(`schedule: ${source.op} is read before a kernel makes it`);
        epoch = Math.max(epoch, made + 1);
      }
      epochs.set(kernel, epoch);
      epochOf.set(kernel.result, epoch);
    }
    const kernels = [...entry.kernels].sort((a, b) => (epochs.get(a) ?? 0) - (epochs.get(b) ?? 0));
    return { ...entry, kernels, epochs };
  },
};
