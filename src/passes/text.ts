import type { Node } from '../ir/graph.js';
import { formatGraph, formatNode, valueNames } from '../ir/text.js';
import type { OpName } from '../ir/ops/index.js';
import type { Entry, Kernel, Output } from './entry.js';

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
    lines.push(`  kernel k${i} ${kernelName(kernel)} {`);
    for (const node of orderedNodes(kernel, entry.graph.nodes)) lines.push(`    ${formatNode(node, names)}`);
    for (const { result, border } of kernel.outputs) {
      const buffer = buffers.get(result);
      const place = buffer ? ` to pool [${buffer.offset}, ${buffer.offset + buffer.bytes})` : '';
      lines.push(`    store ${names.get(result) ?? '?'}${place}   // border: ${border}`);
    }
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

/** What a prologue is called in names. */
export const prologueName: { readonly [N in OpName]?: string } = { rms_norm: 'norm' };

/** What follows on each element of a result, where it is stored: `rope_cache`. */
function outputSteps({ epilogue, append }: Output): string[] {
  const steps = epilogue.map((node): string => node.op);
  const rest = steps.length - mostSteps;
  return [
    ...(rest > 0 ? [...steps.slice(0, mostSteps), `and_${rest}_more`] : steps),
    ...(append ? ['cache'] : []),
  ];
}

/** `norm_silu_mul`, `norm_rope_cache`: what a kernel does besides its template, steps of several results once each. */
export function kernelSteps({ prologue, outputs }: Kernel): string {
  const steps = outputs.length > 1 ? new Set(outputs.flatMap(outputSteps)) : outputSteps(outputs[0]);
  return [...(prologue ? [prologueName[prologue.op] ?? prologue.op] : []), ...steps].join('_');
}

/** `linear_norm_silu_mul`, `silu_mul`, `copy_cache`: the template and the steps. */
export function kernelName(kernel: Kernel): string {
  const [{ epilogue }] = kernel.outputs;
  const template = kernel.kind === 'elementwise' ? (epilogue.length > 0 ? '' : 'copy') : kernel.kind;
  return [template, kernelSteps(kernel)].filter(Boolean).join('_');
}
