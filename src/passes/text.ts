import type { Node } from '../ir/graph.js';
import { formatGraph, formatNode, valueNames } from '../ir/text.js';
import type { Entry, Kernel } from './entry.js';

/** An entry as text: its graph before fuse-layers, its kernels after it, their epochs and buffers when they are known. */
export function formatEntry(entry: Entry): string {
  if (entry.kernels.length === 0) return formatGraph(entry.graph, entry.name);
  const names = valueNames(entry.graph.nodes);
  const buffers = new Map((entry.pool?.buffers ?? []).map((buffer) => [buffer.value, buffer]));
  const lines: string[] = [`entry ${entry.name} {`];
  let epoch = 0;
  entry.kernels.forEach((kernel, i) => {
    const own = entry.epochs.get(kernel) ?? 0;
    if (own !== epoch) lines.push(`  barrier                                  // epoch ${own}`);
    epoch = own;
    const buffer = buffers.get(kernel.result);
    const place = buffer ? `   // pool [${buffer.offset}, ${buffer.offset + buffer.bytes})` : '';
    lines.push(`  kernel k${i} ${kernelName(kernel)} {${place}`);
    for (const node of orderedNodes(kernel, entry.graph.nodes)) lines.push(`    ${formatNode(node, names)}`);
    lines.push('  }');
  });
  if (entry.pool) lines.push(`  pool ${entry.pool.bytes} bytes, lower bound ${entry.pool.lowerBound}`);
  return [...lines, '}', ''].join('\n');
}

function orderedNodes(kernel: Kernel, order: readonly Node[]): Node[] {
  return order.filter((node) => kernel.nodes.has(node));
}

/** Steps that a kernel's name spells out. */
const mostSteps = 6;

/** `linear_silu_mul`, `rope_cache`: the template, what follows on each element, where it is stored. */
export function kernelName(kernel: Kernel): string {
  const steps = kernel.epilogue.map((node) => node.op);
  const computed = kernel.kind === 'elementwise' ? steps : [kernel.kind, ...steps];
  const rest = computed.length - mostSteps;
  const named = rest > 0 ? [...computed.slice(0, mostSteps), `and_${rest}_more`] : computed;
  return [...(named.length > 0 ? named : ['copy']), ...(kernel.append ? ['cache'] : [])].join('_');
}
