import { isLeaf, type Node } from '../ir/graph.js';
import {
  formatBlock,
  formatDims,
  formatGraphBody,
  formatLeaves,
  formatName,
  formatNode,
  formatResults,
  valueNames,
  valuesOf,
} from '../ir/text.js';
import type { OpName } from '../ir/ops/index.js';
import type { Entry, Kernel, Output, PoolBuffer } from './entry.js';

/**
 * The textual form of an entry, which src/passes/parse.ts reads back: that of a graph (src/ir/text.ts) with
 *
 *     entry    = 'entry' name 'of' name [dims] '{' { leaf | value | epoch | kernel | update } return [pool] '}'
 *     epoch    = ['barrier'] 'epoch' index
 *     kernel   = 'kernel' name kind '{' { value } ['prologue' value] store { store } '}'
 *     store    = 'store' value [made] ['to' (buffer | state)]
 *     made     = '(' ('anchors' values [';' 'epilogue' values] | 'epilogue' values) ')'
 *     buffer   = 'pool' '[' start ',' end ')' 'in' 'epochs' first 'to' last
 *     pool     = 'pool' size 'bytes' ',' 'lower' 'bound' size
 *
 * Before fuse-layers there are no kernels, before schedule no epochs, before plan-pool no buffers. Values of no kernel
 * are views. Without `made` the result itself is the anchor, or nothing when it is stored in a state. Comments say the
 * names of kernels, and why results go to memory.
 */
export function formatEntry(entry: Entry): string {
  const { name, graph, kernels } = entry;
  const head = `entry ${formatName(name)} of ${formatName(graph.name)}${formatDims(graph)}`;
  return formatBlock(head, kernels.length === 0 ? formatGraphBody(graph) : new EntryText(entry).lines());
}

class EntryText {
  private readonly names: ReadonlyMap<Node, string>;
  private readonly buffers: ReadonlyMap<Node, PoolBuffer>;
  /** Values that stand in a kernel, or are written already. */
  private readonly written: Set<Node>;

  constructor(private readonly entry: Entry) {
    const { graph, kernels, pool } = entry;
    this.names = valueNames(valuesOf(graph));
    this.buffers = new Map((pool?.buffers ?? []).map((buffer) => [buffer.value, buffer]));
    this.written = new Set([...graph.nodes.filter(isLeaf), ...kernels.flatMap(({ nodes }) => [...nodes])]);
  }

  lines(): string[] {
    const { graph, kernels, epochs, pool } = this.entry;
    const lines = formatLeaves(graph, this.names);
    let epoch: number | undefined;
    kernels.forEach((kernel, i) => {
      const own = epochs.get(kernel);
      if (own !== epoch && own !== undefined) {
        lines.push(`${epoch === undefined ? '' : 'barrier '}epoch ${own}`);
        epoch = own;
      }
      const nodes = graph.nodes.filter((node) => kernel.nodes.has(node));
      lines.push(...this.views(nodes.flatMap((node) => node.inputs)), ...this.kernel(kernel, nodes, i));
    });
    lines.push(...this.views(graph.nodes), ...formatResults(graph, this.names));
    if (pool)
      lines.push(
        `pool ${pool.bytes} bytes, lower bound ${pool.lowerBound}${pool.optimal ? ', optimal' : ''}`,
      );
    return lines;
  }

  /** Those of `nodes` that are in no kernel and not written yet, each after its inputs. */
  private views(nodes: readonly Node[]): string[] {
    return nodes.flatMap((node) => {
      if (this.written.has(node)) return [];
      this.written.add(node);
      return [...this.views(node.inputs), formatNode(node, this.names)];
    });
  }

  private kernel(kernel: Kernel, nodes: readonly Node[], index: number): string[] {
    const name = kernelName(kernel);
    const body = [
      ...nodes.map((node) => formatNode(node, this.names)),
      ...(kernel.prologue ? [`prologue ${this.name(kernel.prologue)}`] : []),
      ...kernel.outputs.map((output) => this.store(output)),
    ];
    return [
      `kernel k${index} ${kernel.kind} {${name === kernel.kind ? '' : `   // ${name}`}`,
      ...body.map((line) => `  ${line}`),
      '}',
    ];
  }

  private store({ anchors, epilogue, append, result, border }: Output): string {
    const list = (what: string, nodes: readonly Node[]): string[] =>
      nodes.length > 0 ? [`${what} ${nodes.map((node) => this.name(node)).join(', ')}`] : [];
    const made = [...list('anchors', anchors), ...list('epilogue', epilogue)].join('; ');
    const alone = epilogue.length === 0 && (append ? anchors.length === 0 : anchors[0] === result);
    const buffer = this.buffers.get(result);
    const [cache] = append?.inputs ?? [];
    return [
      `store ${this.name(result)}`,
      alone ? '' : ` (${made})`,
      cache ? ` to ${this.name(cache)}` : '',
      buffer ? ` to ${formatBuffer(buffer)}` : '',
      border === '' ? '' : `   // border: ${border}`,
    ].join('');
  }

  private name(node: Node): string {
    return this.names.get(node) ?? '?';
  }
}

function formatBuffer({ offset, bytes, firstEpoch, lastEpoch }: PoolBuffer): string {
  return `pool [${offset}, ${offset + bytes}) in epochs ${firstEpoch} to ${lastEpoch}`;
}

/** Steps that a kernel's name spells out. */
const mostSteps = 6;

/** What a prologue is called in names. */
export const prologueName: { readonly [N in OpName]?: string } = {
  rms_norm: 'norm',
  attention_combine: 'combine',
};

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
