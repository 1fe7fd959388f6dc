import type { Node } from '../ir/graph.js';
import { bindShape, bytesPerElement, elementCount, type DimBindings } from '../ir/type.js';
import { kernelSources, layoutOf } from './access.js';
import type { EntryPass, PoolBuffer } from './entry.js';
import { placeBuffers } from './pool/place.js';

type Lifetime = Omit<PoolBuffer, 'offset'>;

/**
 * Gives every transient value an offset in one static pool. Values whose lifetimes share an epoch get disjoint
 * bytes. The sizes are multiples of the target's alignment, and so are the offsets.
 */
export const planPool: EntryPass = {
  name: 'plan-pool',
  doc: 'give every transient buffer an offset in one static pool',
  run: (entry, { target }) => ({
    ...entry,
    pool: placeBuffers(lifetimes(entry, target.alignment)),
  }),
};

export function bytesOf(node: Node, dims: DimBindings): number {
  return elementCount(bindShape(node.type.shape, dims)) * bytesPerElement[node.type.dtype];
}

export const alignUp = (bytes: number, alignment: number): number => Math.ceil(bytes / alignment) * alignment;

/** Outputs live outside the pool, where the host reads them; appended values live in their cache. */
function lifetimes(entry: Parameters<EntryPass['run']>[0], alignment: number): Lifetime[] {
  const layout = layoutOf(entry.graph);
  const outputs = new Set(entry.graph.outputs.values());
  const lastUse = new Map<Node, number>();
  for (const kernel of entry.kernels) {
    for (const source of kernelSources(kernel, layout)) lastUse.set(source, entry.epochs.get(kernel) ?? 0);
  }
  return entry.kernels
    .filter((kernel) => !kernel.append && !outputs.has(kernel.result))
    .map((kernel) => {
      const firstEpoch = entry.epochs.get(kernel) ?? 0;
      const bytes = alignUp(bytesOf(kernel.result, entry.graph.dims), alignment);
      return { value: kernel.result, bytes, firstEpoch, lastEpoch: lastUse.get(kernel.result) ?? firstEpoch };
    });
}
