import type { Node } from '../ir/graph.js';
import { bindShape, bytesPerElement, elementCount, type DimBindings } from '../ir/type.js';
import { kernelSources, layoutOf } from './access.js';
import type { EntryPass, PoolBuffer, PoolPlan } from './entry.js';

type Lifetime = Omit<PoolBuffer, 'offset'>;

/**
 * Gives every transient value an offset in one static pool. Values whose lifetimes share an epoch get disjoint
 * bytes. Greedy by size: the largest first, each at the lowest offset that is free during its lifetime.
 */
export const planPool: EntryPass = {
  name: 'plan-pool',
  doc: 'give every transient buffer an offset in one static pool',
  run: (entry, { target }) => ({
    ...entry,
    pool: placeBuffers(lifetimes(entry, target.alignment), target.alignment),
  }),
};

export function bytesOf(node: Node, dims: DimBindings): number {
  return elementCount(bindShape(node.type.shape, dims)) * bytesPerElement[node.type.dtype];
}

export const alignUp = (bytes: number, alignment: number): number => Math.ceil(bytes / alignment) * alignment;

/** Outputs live outside the pool, where the host reads them; appended values live in their cache. */
function lifetimes(entry: Parameters<EntryPass['run']>[0], alignment: number): Lifetime[] {
  const layout = layoutOf(entry);
  const outputs = new Set(entry.graph.outputs.values());
  const lastUse = new Map<Node, number>();
  for (const kernel of entry.kernels) {
    for (const source of kernelSources(kernel, layout)) lastUse.set(source, entry.epochs.get(kernel) ?? 0);
  }
  return entry.kernels.flatMap((kernel) => {
    const firstEpoch = entry.epochs.get(kernel) ?? 0;
    return kernel.outputs
      .filter(({ append, result }) => !append && !outputs.has(result))
      .map(({ result }) => {
        const bytes = alignUp(bytesOf(result, entry.graph.dims), alignment);
        return { value: result, bytes, firstEpoch, lastEpoch: lastUse.get(result) ?? firstEpoch };
      });
  });
}

/** Places buffers, all of them multiples of `alignment` bytes. */
export function placeBuffers(buffers: readonly Lifetime[], alignment: number): PoolPlan {
  const placed: PoolBuffer[] = [];
  for (const buffer of [...buffers].sort((a, b) => b.bytes - a.bytes)) {
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
  return {
    buffers: placed,
    bytes: placed.reduce((end, buffer) => Math.max(end, buffer.offset + buffer.bytes), 0),
    lowerBound: maxLive(buffers),
  };
}

function maxLive(buffers: readonly Lifetime[]): number {
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
