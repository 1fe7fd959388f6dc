import { CompilerBug } from '../diagnostic.js';
import { nameInputs, type NdArray } from './define.js';
import { isOp, type Graph, type Node } from './graph.js';
import { ops, type AttrsOf, type OpName } from './ops/index.js';
import { bindShape, elementCount, rounded, type DimBindings } from './type.js';

/** What a step is given: inputs, weights and states by name. */
export interface Feed {
  readonly inputs: ReadonlyMap<string, readonly number[]>;
  readonly weights: (name: string) => Float64Array;
  readonly states?: ReadonlyMap<string, Float64Array>;
}

export interface StepResult {
  readonly outputs: ReadonlyMap<string, NdArray>;
  /** New values of the states, by state name. */
  readonly states: ReadonlyMap<string, Float64Array>;
  /** Every value on the way. */
  readonly values: ReadonlyMap<Node, NdArray>;
}

/** Evaluates one node from the values of its inputs. */
export function evaluateNode(node: Node, inputs: readonly NdArray[], dims: DimBindings): NdArray {
  const shape = bindShape(node.type.shape, dims);
  const data = evaluateOp(node.op, node.attrs, inputs, shape);
  const { dtype } = node.type;
  return { shape, data: dtype === 'f16' ? data.map((value) => rounded(value, dtype)) : data };
}

function evaluateOp<N extends OpName>(
  op: N,
  attrs: AttrsOf<N>,
  inputs: readonly NdArray[],
  shape: readonly number[],
): Float64Array {
  const record = ops[op];
  const evaluate = record.evaluate as (
    inputs: Record<string, NdArray>,
    attrs: AttrsOf<N>,
    shape: readonly number[],
  ) => Float64Array;
  return evaluate(nameInputs(record.inputs, inputs), attrs, shape);
}

/**
 * Runs a graph in float64, op by op. This is the definition of what a model computes: fast code is compared with it.
 * The dim T is the number of tokens given; other dims are the graph's.
 */
export function interpret(graph: Graph, feed: Feed): StepResult {
  const tokens = feed.inputs.get('tokens');
  const dims: DimBindings = { ...graph.dims, ...(tokens ? { T: tokens.length } : {}) };
  const values = new Map<Node, NdArray>();
  const valueOf = (node: Node): NdArray => {
    const value = values.get(node);
    if (!value) throw new CompilerBug(`${node.op} is used before it is computed`);
    return value;
  };
  for (const node of graph.nodes)
    values.set(node, leafValue(node, feed, dims) ?? evaluateNode(node, node.inputs.map(valueOf), dims));
  return {
    outputs: new Map([...graph.outputs].map(([name, node]) => [name, valueOf(node)])),
    states: new Map([...graph.updates].map(([state, node]) => [state.attrs.name, valueOf(node).data])),
    values,
  };
}

function leafValue(node: Node, feed: Feed, dims: DimBindings): NdArray | undefined {
  if (!isOp(node, 'input', 'weight', 'state')) return undefined;
  const { name } = node.attrs;
  const shape = bindShape(node.type.shape, dims);
  const data =
    node.op === 'weight'
      ? feed.weights(name)
      : node.op === 'input'
        ? Float64Array.from(feed.inputs.get(name) ?? [])
        : (feed.states?.get(name) ?? new Float64Array(elementCount(shape)));
  if (data.length !== elementCount(shape)) {
    throw new RangeError(
      `${node.op} ${name} has ${data.length} elements, its shape [${shape.join(', ')}] needs ${elementCount(shape)}`,
    );
  }
  return { shape, data };
}
