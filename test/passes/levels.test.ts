import { expect, it } from 'vitest';
import { CompilerBug } from '../../src/diagnostic.js';
import { makeGraph, makeNode, type Node } from '../../src/ir/graph.js';
import { f32 } from '../../src/ir/type.js';
import { layoutOf } from '../../src/passes/access.js';
import type { Kernel } from '../../src/passes/entry.js';
import { levelsOf } from '../../src/passes/levels.js';
import { inputOf } from '../support/graphs.js';

const x = inputOf('x', f32('T', 4));
const silu = (value: Node): Node => makeNode('silu', [value], {});
const add = (a: Node, b: Node): Node => makeNode('add', [a, b], {});

/** A kernel that holds `nodes`, the last `results` of which leave it. */
function kernelOf(nodes: readonly [Node, ...Node[]], results = 1): Kernel {
  const [first, ...rest] = nodes
    .slice(-results)
    .map((result) => ({ anchors: [], epilogue: [result], append: undefined, result, border: '' }));
  if (!first) throw new Error('a kernel has a result');
  return { kind: 'elementwise', prologue: undefined, outputs: [first, ...rest], nodes: new Set(nodes) };
}

function levels(result: Node, kernels: readonly Kernel[]): (number | undefined)[] {
  const graph = makeGraph({
    name: 'g',
    outputs: new Map([['y', result]]),
    updates: new Map(),
    dims: { T: 8 },
  });
  const found = levelsOf(kernels, layoutOf({ graph, kernels }));
  return kernels.map((kernel) => found.get(kernel));
}

const a = silu(x);
const b = silu(a);
const c = silu(b);
const sum = add(a, c);

it('counts the kernels of the longest chain before each', () => {
  expect(levels(sum, [kernelOf([a]), kernelOf([b]), kernelOf([c]), kernelOf([sum])])).toEqual([0, 1, 2, 3]);
});

it('does not depend on the order of the kernels', () => {
  expect(levels(sum, [kernelOf([sum]), kernelOf([c]), kernelOf([b]), kernelOf([a])])).toEqual([3, 2, 1, 0]);
});

it('counts a kernel once, whatever is inside', () => {
  expect(levels(sum, [kernelOf([a]), kernelOf([b, c, sum])])).toEqual([0, 1]);
});

it('waits for every result of a kernel, and for all that makes them', () => {
  const other = silu(inputOf('z', f32('T', 4)));
  const late = add(b, other);
  const kernels = [kernelOf([a]), kernelOf([b, other], 2), kernelOf([late])];
  expect(levels(late, kernels)).toEqual([0, 1, 2]);
});

it('looks through views at what makes their elements', () => {
  const [left, right] = [0, 1].map((part) => makeNode('split', [a], { sizes: [2, 2], part }));
  if (!left || !right) throw new Error('two parts');
  const both = add(left, right);
  expect(levels(both, [kernelOf([both]), kernelOf([a])])).toEqual([1, 0]);
});

it('takes kernels that need each other for a bug', () => {
  // a and c in one kernel, b between them in another.
  const kernels = [kernelOf([a, c], 2), kernelOf([b]), kernelOf([sum])];
  expect(() => levels(sum, kernels)).toThrow(new CompilerBug('kernels need the results of each other'));
});

it('takes a value that no kernel makes for a bug', () => {
  const kernels = [kernelOf([a]), kernelOf([c]), kernelOf([sum])];
  expect(() => levels(sum, kernels)).toThrow(new CompilerBug('silu is read, but no kernel makes it'));
});
