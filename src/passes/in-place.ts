import { isOp, type Node } from '../ir/graph.js';
import { sameType } from '../ir/type.js';
import { kernelSources, type Layout } from './access.js';
import type { Entry, Kernel, Output } from './entry.js';

/**
 * The operands that a result may overwrite as far as the kernel's text goes: values of its type that the kernel reads
 * in this result's epilogue alone, each element by the thread that then stores the element in its place.
 */
function overwritable(kernel: Kernel, output: Output, layout: Layout): readonly Node[] {
  const { epilogue, append, result } = output;
  if (append || kernel.outputs.length > 1 || kernel.kind === 'sample') return [];
  const elsewhere = new Set<Node>();
  const atElement = new Set<Node>();
  for (const node of kernel.nodes) {
    for (const input of node.inputs) {
      if (kernel.nodes.has(input)) continue;
      const access = layout.of(input);
      const own = epilogue.includes(node) && !isOp(node, 'rope') && access.source === input;
      (own && sameType(input.type, result.type) ? atElement : elsewhere).add(access.source);
    }
  }
  return [...atElement].filter((source) => !elsewhere.has(source));
}

/**
 * Which value each result takes the memory of: one that nothing reads after the kernel, nor another kernel at the same
 * time. `transient` are the values that live in the pool.
 */
export function overwrites(
  entry: Entry,
  layout: Layout,
  transient: ReadonlySet<Node>,
): ReadonlyMap<Node, Node> {
  const lastEpoch = new Map<Node, number>();
  const lastReaders = new Map<Node, number>();
  for (const kernel of entry.kernels) {
    const epoch = entry.epochs.get(kernel) ?? 0;
    for (const source of kernelSources(kernel, layout)) {
      const later = epoch > (lastEpoch.get(source) ?? -1);
      lastReaders.set(source, later ? 1 : (lastReaders.get(source) ?? 0) + 1);
      if (later) lastEpoch.set(source, epoch);
    }
  }
  const taken = new Map<Node, Node>();
  for (const kernel of entry.kernels) {
    for (const output of kernel.outputs) {
      if (!transient.has(output.result)) continue;
      const dying = overwritable(kernel, output, layout).find(
        (source) =>
          transient.has(source) &&
          lastEpoch.get(source) === entry.epochs.get(kernel) &&
          lastReaders.get(source) === 1,
      );
      if (dying) taken.set(output.result, dying);
    }
  }
  return taken;
}
