import { expect, it } from 'vitest';
import { makeNode, type Node } from '../../src/ir/graph.js';
import { f32 } from '../../src/ir/type.js';
import type { Kernel, Output } from '../../src/passes/entry.js';
import { productShape } from '../../src/passes/product.js';
import { targets } from '../../src/passes/target.js';
import { inputOf } from '../support/graphs.js';

const x = makeNode('rms_norm', [inputOf('x', f32('T', 64)), inputOf('gain', f32(64))], { eps: 1e-5 });

/** A kernel with a result of each of these widths, after a norm or not. */
function kernelOf(widths: readonly number[], prologue?: Node): Kernel {
  const outputs = widths.map((width): Output => {
    const product = makeNode('linear', [x, inputOf('matrix', f32(width, 64))], {});
    return { anchors: [product], epilogue: [], append: undefined, result: product, border: '' };
  });
  const [first, ...rest] = outputs;
  if (!first) throw new Error('a kernel has a result');
  return { kind: 'linear', prologue, outputs: [first, ...rest], nodes: new Set() };
}

const { metal, cpu } = targets;

it('deals out whole blocks, one to each threadgroup', () => {
  // Metal: two simdgroups of four rows; CPU: one.
  expect(productShape(kernelOf([16]), metal)).toEqual({
    simdgroups: 2,
    rows: 8,
    blocks: [2],
    threadgroups: 2,
  });
  expect(productShape(kernelOf([17]), metal)).toMatchObject({ blocks: [3], threadgroups: 3 });
  expect(productShape(kernelOf([1]), metal)).toMatchObject({ blocks: [1], threadgroups: 1 });
  expect(productShape(kernelOf([17]), cpu)).toEqual({ simdgroups: 1, rows: 4, blocks: [5], threadgroups: 5 });
});

it('begins each result with a block of its own', () => {
  expect(productShape(kernelOf([9, 8, 1]), metal)).toMatchObject({ blocks: [2, 1, 1], threadgroups: 4 });
});

it('has taller blocks where every threadgroup prepares x', () => {
  // Metal: eight simdgroups of four rows.
  expect(productShape(kernelOf([64, 33], x), metal)).toEqual({
    simdgroups: 8,
    rows: 32,
    blocks: [2, 2],
    threadgroups: 4,
  });
});

it('gives threadgroups several blocks rather than prepare x more often than the target likes', () => {
  expect(productShape(kernelOf([512 * 32], x), metal)).toMatchObject({ blocks: [512], threadgroups: 512 });
  expect(productShape(kernelOf([512 * 32 + 1], x), metal)).toMatchObject({
    blocks: [513],
    threadgroups: 512,
  });
  expect(productShape(kernelOf([17, 3], x), cpu)).toMatchObject({ blocks: [5, 1], threadgroups: 1 });
});
