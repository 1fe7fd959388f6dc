import type { NdArray } from '../../src/ir/define.js';
import { buildGraph, type Tensor } from '../../src/ir/dsl.js';
import { makeNode, noOrigin, type Graph, type Node } from '../../src/ir/graph.js';
import { evaluateNode } from '../../src/ir/interpret.js';
import type { AttrsOf, OpName } from '../../src/ir/ops/index.js';
import {
  elementCount,
  elementTypeOf,
  type DimBindings,
  type DType,
  type TensorType,
} from '../../src/ir/type.js';
import type { Entry, EntryPass } from '../../src/passes/entry.js';
import { insertKvCache, type CacheOptions } from '../../src/passes/insert-kv-cache.js';
import { targets, type Target } from '../../src/passes/target.js';
import { verifyEntry } from '../../src/passes/verify.js';

/** The graph that `body` builds with the DSL, its weights of type `dtype`. */
export function graphOf(body: () => Tensor, dtype: DType = 'f32'): Graph {
  return buildGraph('small', { dtype, dtypeOf: () => undefined }, body);
}

/** An input of the given type, outside any model. */
export function inputOf(name: string, type: TensorType): Node {
  const { shape } = type;
  return makeNode(
    'input',
    [],
    { name, dtype: elementTypeOf(type), shape: [...shape] },
    { ...noOrigin, name },
  );
}

export function array(shape: readonly number[], values: readonly number[]): NdArray {
  if (values.length !== elementCount(shape))
    throw new Error(`[${shape.join()}] is not ${values.length} values`);
  return { shape, data: Float64Array.from(values) };
}

/** Operands of an op under test: `i32` for ids and positions. */
export interface Operand extends NdArray {
  readonly dtype?: DType;
}

/** What the op computes from these operands. */
export function evaluate<N extends OpName>(
  op: N,
  operands: readonly Operand[],
  attrs: AttrsOf<N>,
  dims: DimBindings = {},
): { shape: readonly number[]; values: number[] } {
  const inputs = operands.map(({ dtype = 'f32', shape }, i) => inputOf(`x${i}`, { dtype, shape }));
  const { shape, data } = evaluateNode(makeNode(op, inputs, attrs), operands, dims);
  return { shape, values: [...data] };
}

/** One entry point of a graph after the given passes, verified after each. */
export function entryOf(
  graph: Graph,
  name: 'decode' | 'prefill' | 'score',
  passes: readonly EntryPass[],
  options: CacheOptions & { readonly target?: Target } = { context: 64, chunk: 8 },
): Entry {
  const target = options.target ?? targets.cpu;
  const made = insertKvCache(graph, options).entries.get(name);
  if (!made) throw new Error(`no entry ${name}`);
  let entry: Entry = { name, graph: made, kernels: [], epochs: new Map(), pool: undefined };
  for (const pass of passes) {
    entry = pass.run(entry, { target });
    verifyEntry(entry, pass.name, target.alignment);
  }
  return entry;
}
