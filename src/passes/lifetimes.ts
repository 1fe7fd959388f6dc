import type { Node } from '../ir/graph.js';
import { kernelSources, layoutOf } from './access.js';
import type { Entry, PoolBuffer } from './entry.js';
import { overwrites } from './in-place.js';
import { alignUp, bytesOf } from './size.js';

/** A value and the barrier epochs during which it must be kept. */
export type ValueLifetime = Omit<PoolBuffer, 'offset'>;

/** Bytes that hold one value after the other: each but the first is written over the one before, element by element. */
export interface Slot {
  readonly values: readonly ValueLifetime[];
  readonly bytes: number;
  readonly firstEpoch: number;
  readonly lastEpoch: number;
}

/** Results that live in the pool: outputs live where the host reads them, appended values in their cache. */
export function transientValues({ graph, kernels }: Entry): ReadonlySet<Node> {
  const outputs = new Set(graph.outputs.values());
  const all = kernels.flatMap((kernel) => kernel.outputs);
  return new Set(
    all.filter(({ append, result }) => !append && !outputs.has(result)).map(({ result }) => result),
  );
}

/** What the pool must hold, and when. */
export function slotsOf(entry: Entry, alignment: number): Slot[] {
  const layout = layoutOf(entry);
  const transient = transientValues(entry);
  const lastUse = new Map<Node, number>();
  for (const kernel of entry.kernels) {
    for (const source of kernelSources(kernel, layout)) lastUse.set(source, entry.epochs.get(kernel) ?? 0);
  }
  const taken = overwrites(entry, layout, transient);
  const slots = new Map<Node, ValueLifetime[]>();
  for (const kernel of entry.kernels) {
    const firstEpoch = entry.epochs.get(kernel) ?? 0;
    for (const { result } of kernel.outputs) {
      if (!transient.has(result)) continue;
      const bytes = alignUp(bytesOf(result, entry.graph.dims), alignment);
      const lifetime = { value: result, bytes, firstEpoch, lastEpoch: lastUse.get(result) ?? firstEpoch };
      const operand = taken.get(result);
      const slot = (operand && slots.get(operand)) ?? [];
      slot.push(lifetime);
      slots.set(result, slot);
    }
  }
  return [...new Set(slots.values())].map((values) => ({
    values,
    bytes: Math.max(...values.map(({ bytes }) => bytes)),
    firstEpoch: Math.min(...values.map(({ firstEpoch }) => firstEpoch)),
    lastEpoch: Math.max(...values.map(({ lastEpoch }) => lastEpoch)),
  }));
}
