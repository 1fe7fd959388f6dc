import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import type { ProgramSpec } from '../../src/runtime/native.js';
import { readPlan } from '../../src/runtime/plan.js';
import * as dsl from '../../src/ir/dsl.js';
import { programSpec } from '../../src/runtime/session.js';
import type { CacheDType } from '../../src/passes/insert-kv-cache.js';
import { sharedFolder } from '../support/temporary.js';
import { addon, buffers, emptySpec, position, root, row, threadgroup } from './support.js';

/**
 * What NVRTC gets, compiled for an NVIDIA GPU by clang, which needs neither a GPU nor CUDA for that: stub.h declares what
 * NVRTC knows by itself. So a machine without a GPU finds what would not compile on one.
 */

const clang = ['clang-16', 'clang-17', 'clang-18', 'clang-19', 'clang'].find((name) => {
  try {
    return execFileSync(name, ['--print-targets'], { encoding: 'utf8' }).includes('nvptx64');
  } catch {
    return false;
  }
});

async function ptxOf(spec: ProgramSpec): Promise<string> {
  if (clang === undefined) throw new Error('no clang that compiles for NVIDIA GPUs');
  const source = path.join(sharedFolder(), 'unit.cu');
  const out = path.join(sharedFolder(), 'unit.ptx');
  writeFileSync(source, await addon.cudaSource(spec));
  execFileSync(clang, [
    ...[
      '-x',
      'cuda',
      '--cuda-device-only',
      '-nocudainc',
      '-nocudalib',
      '--cuda-gpu-arch=sm_80',
      '-std=c++17',
    ],
    ...['-Wno-everything', '-O1', '-fno-builtin', '-I', path.join(root, 'native/msl')],
    ...['-include', path.join(root, 'test/native/cuda/stub.h'), '-S', '-o', out, source],
  ]);
  return readFileSync(out, 'utf8');
}

const builds: readonly (readonly [string, string, CacheDType?])[] = [
  ['llama', 'examples/stories260k'],
  ['phi4', 'test/fixtures/random-phi3-sliding'],
  ['phi4', 'test/fixtures/random-phi4-mini'],
  ['qwen2', 'test/fixtures/random-qwen2'],
  ['gpt2', 'test/fixtures/random-gpt2'],
  ['phi4', 'test/fixtures/random-phi3-sliding', 'f16'],
];

it
  .skipIf(clang === undefined)
  .each(
    builds.flatMap(([model, weights, kv = 'f32']) =>
      (['metal', 'cuda'] as const).map((target) => ({ model, weights, kv, target })),
    ),
  )('models/$model of $weights, cache $kv, target $target', async ({ model, weights, kv, target }) => {
  const out = path.join(sharedFolder(), `${path.basename(weights)}-${kv}-${target}`);
  await compile({ model: `models/${model}.graph.ts`, weights, target, kv, out });
  const spec = programSpec(out, readPlan(out));
  const ptx = await ptxOf(spec);
  const entries = [...ptx.matchAll(/\.visible \.entry (\w+)\(/g)].map(([, name]) => name);
  expect(entries).toEqual(spec.kernels.map(({ name }) => `upgc_${name}`));
});

it.skipIf(clang === undefined)(
  'products with sparse matrices, whose rows are loaded 16 bytes at a time',
  async () => {
    const model = dsl.model({ name: 'sparse', config: dsl.z.looseObject({}), context: () => 4 }, () => {
      const x = dsl.embed(dsl.tokens(), dsl.weight('table', [64, 64]));
      const names = ['floats', 'halves', 'bfloats', 'integers'];
      const products = names.map((name) => dsl.linear(x, dsl.weight(name, [64, 64])));
      return products.reduce((a, b) => dsl.mul(a, dsl.silu(b)));
    });
    const out = path.join(sharedFolder(), 'sparse');
    await compile({
      model,
      weights: 'random:1',
      target: 'cuda',
      out,
      sparsify: 'floats=magnitude:0.5:4x8,halves=magnitude:0.5:16x1,*=magnitude:0.5',
      quantize: [
        { match: 'halves', format: 'f16' },
        { match: 'bfloats', format: 'bf16' },
        { match: 'integers', format: 'q4g32' },
      ],
    });
    const spec = programSpec(out, readPlan(out));
    const ptx = await ptxOf(spec);
    const sparse = spec.kernels.filter(({ name }) => name.includes('sparse'));
    expect(sparse.length).toBeGreaterThan(0);
    for (const { name } of sparse) {
      const [, body = ''] = ptx.split(`.visible .entry upgc_${name}(`);
      expect(body.slice(0, body.indexOf('\n}'))).toMatch(/ld\.(global\.)?(nc\.)?v4\./);
    }
  },
);

it.skipIf(clang === undefined)('the library that only CUDA has', async () => {
  const spec = emptySpec(path.join(sharedFolder(), 'cache'), {
    source: `#include <metal_stdlib>\nusing namespace metal;\n${readFileSync(path.join(root, 'test/native/cuda/library.metal'), 'utf8')}`,
    kernels: [
      {
        name: 'all',
        threads: row(64),
        arguments: [
          ...buffers(5),
          threadgroup(0, 1024),
          position('thread_index_in_threadgroup'),
          position('threadgroup_position_in_grid'),
        ],
      },
    ],
  });
  const ptx = await ptxOf(spec);
  for (const instruction of [
    'mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32',
    'mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32',
    'movmatrix.sync.aligned',
    'cvt.rn.f16.f32',
  ])
    expect(ptx).toContain(instruction);
});
