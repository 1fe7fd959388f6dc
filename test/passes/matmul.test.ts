import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { fuseLayers } from '../../src/passes/fuse-layers.js';
import { matmulShape, type MatmulShape } from '../../src/passes/matmul.js';
import { targets, type TargetName } from '../../src/passes/target.js';
import { entryOf, graphOf } from '../support/graphs.js';

const shapeOf = (target: TargetName, width: number, chunk: number): MatmulShape | undefined => {
  const body = (): dsl.Tensor => {
    const x = dsl.embed(dsl.tokens(), dsl.weight('table', [13, width]));
    const linear = (name: string): dsl.Tensor => dsl.linear(x, dsl.weight(name, [200, width]));
    return dsl.mul(dsl.silu(linear('gate')), linear('up'));
  };
  const { kernels, graph } = entryOf(graphOf(body), 'score', [fuseLayers], {
    ...{ context: 64, chunk, target: targets[target] },
  });
  const [kernel] = kernels.filter(({ kind }) => kind === 'linear');
  return kernel && matmulShape(kernel, graph.dims, targets[target]);
};

describe('tiles of the products of a chunk', () => {
  it.each(['metal', 'cuda'] as const)('for %s fill the simdgroups and fit threadgroup memory', (name) => {
    const shape = shapeOf(name, 64, 8);
    const target = targets[name];
    expect(shape).toMatchObject({ ...target.matmul, stages: 2, partRows: target.matmul.rows / 2 });
    expect(shape?.threadgroupBytes).toBeLessThanOrEqual(target.threadgroupBytes);
    expect(shape?.tiles).toEqual([Math.ceil(200 / (target.matmul.rows / 2))]);
    const { threads = 0, simdgroupRows = 0, simdgroupTokens = 0 } = shape ?? {};
    expect((threads / 32) * simdgroupRows * simdgroupTokens).toBe(target.matmul.rows * target.matmul.tokens);
  });

  it.each([
    ['fewer than 8 tokens', 'metal', 64, 7],
    ['rows of no whole run', 'metal', 72, 8],
    ['simdgroups of one lane', 'cpu', 64, 64],
  ] as const)('are not made of %s', (_, target, width, chunk) => {
    expect(shapeOf(target, width, chunk)).toBeUndefined();
  });
});
