import { CompilerBug } from '../diagnostic.js';
import { isOp, type Node } from '../ir/graph.js';
import type { OpName } from '../ir/ops/index.js';
import { elementTypeOf } from '../ir/type.js';
import type { Access } from '../passes/access.js';
import { conversion, elementIndex, floatLiteral, rowAxes, sum, times, type Iteration } from './expression.js';
import type { Site } from './site.js';

type Expression = (inputs: readonly string[], node: Node) => string;

/** Metal text of each elementwise op from the text of its inputs; other ops have templates. */
const expressions: { readonly [N in OpName]: Expression | undefined } = {
  input: undefined,
  weight: undefined,
  state: undefined,
  rope_table: undefined,
  embed: undefined,
  linear: undefined,
  sparse_linear: undefined,
  rms_norm: undefined,
  layer_norm: undefined,
  rope: undefined,
  cache_append: undefined,
  attention: undefined,
  attention_parts: undefined,
  attention_combine: undefined,
  split: undefined,
  reshape: undefined,
  positions: undefined,
  softmax: undefined,
  last: undefined,
  argmax: undefined,
  sample_parts: undefined,
  sample: undefined,
  add: ([a = '', b = '']) => `${a} + ${b}`,
  mul: ([a = '', b = '']) => `${a} * ${b}`,
  silu: ([x = '']) => `silu(${x})`,
  gelu: ([x = '']) => `gelu(${x})`,
  tanh: ([x = '']) => `metal::precise::tanh(${x})`,
  scale: ([x = ''], node) => `${x} * ${isOp(node, 'scale') ? floatLiteral(node.attrs.by) : ''}`,
};

/** What is computed on each element before it is stored. */
export interface Epilogue {
  readonly epilogue: readonly { readonly name: string; readonly expression: string }[];
  /** Name of the value to store. */
  readonly result: string;
}

/**
 * Writes the epilogue of a result whose anchors (or whose anchor, turned) are in `v0`, `v1`, …; further inputs become arguments `r0`, `r1`, ….
 * Without anchors the first value is loaded.
 */
export function writeEpilogue({ kernel, output, iteration, layout, list }: Site): Epilogue {
  const names = new Map<Node, string>();
  const storeIndex = output.append
    ? undefined
    : sum(times(iteration.rows > 1 ? 't' : '', iteration.width), iteration.width > 1 ? 'n' : '');
  const computesAnchors = kernel.kind !== 'elementwise';
  const turned = output.epilogue.filter((node) => isOp(node, 'rope'));
  const given = turned.length > 0 ? turned : output.anchors;
  if (computesAnchors) given.forEach((node, i) => names.set(node, `v${i}`));
  const load = (access: Access, within: Iteration): string => {
    const dtype = elementTypeOf(access.source.type);
    const { open, close } = conversion[dtype];
    const index = elementIndex(access, within);
    const own = index === storeIndex && within === iteration;
    const buffer = list.read(`r${list.operands.length}`, access.source, dtype, own ? 'element' : 'read');
    return `${open}${buffer}[${index}]${close}`;
  };
  const valueOf = (node: Node): string => names.get(node) ?? load(layout.of(node), iteration);
  const steps: { name: string; expression: string }[] = [];
  const define = (node: Node, expression: string): void => {
    const name = `v${names.size}`;
    names.set(node, name);
    steps.push({ name, expression });
  };
  for (const moved of computesAnchors ? [] : output.anchors) {
    const from = layout.copied.get(moved);
    if (from) define(moved, load(from, { ...iteration, axes: rowAxes(from.shape) }));
  }
  if (!computesAnchors && output.anchors.length + output.epilogue.length === 0 && output.append) {
    const [, x] = output.append.inputs;
    if (x) define(x, valueOf(x));
  }
  for (const node of output.epilogue) {
    if (names.has(node)) continue;
    const write = expressions[node.op];
    if (!write) throw new CompilerBug(`${node.op} cannot be an epilogue`);
    define(node, write(node.inputs.map(valueOf), node));
  }
  return { epilogue: steps, result: `v${names.size - 1}` };
}
