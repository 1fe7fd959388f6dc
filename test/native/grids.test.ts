import { describe, expect, it } from 'vitest';
import type { NativeKernel } from '../../src/runtime/native.js';
import { buffers, defined, failure, position, row, run, temporaryFolder, threadgroup } from './support.js';

/** Grids and threadgroups of three dimensions, with and without smaller threadgroups at the edges. */

const cache = temporaryFolder();

type Extent = readonly [number, number, number];

const product = (extent: Extent): number => extent[0] * extent[1] * extent[2];
const map = (extent: Extent, of: (size: number, axis: number) => number): Extent => [
  of(extent[0], 0),
  of(extent[1], 1),
  of(extent[2], 2),
];

/** All places of an extent, x fastest. */
const places = (extent: Extent): Extent[] =>
  Array.from({ length: product(extent) }, (_, i) => [
    i % extent[0],
    Math.floor(i / extent[0]) % extent[1],
    Math.floor(i / extent[0] / extent[1]),
  ]);

interface Grid {
  readonly threads: Extent;
  readonly gridThreads: Extent;
  readonly simdWidth: 1 | 32;
}

const groupsOf = ({ threads, gridThreads }: Grid): Extent =>
  map(threads, (size, axis) => Math.ceil(defined(gridThreads[axis]) / size));

/** What every attribute is in each thread of the grid, in the order of `thread_position_in_grid`, x fastest. */
function attributesOf(grid: Grid): Record<string, readonly number[]>[] {
  const { threads, gridThreads, simdWidth } = grid;
  const quad = simdWidth === 1 ? 1 : 4;
  return places(gridThreads).map((at) => {
    const group = map(at, (x, axis) => Math.floor(x / defined(threads[axis])));
    const local = map(at, (x, axis) => x % defined(threads[axis]));
    const size = map(threads, (whole, axis) =>
      Math.min(whole, defined(gridThreads[axis]) - defined(group[axis]) * whole),
    );
    const index = local[0] + size[0] * (local[1] + size[1] * local[2]);
    return {
      thread_position_in_grid: at,
      threadgroup_position_in_grid: group,
      thread_position_in_threadgroup: local,
      threads_per_threadgroup: size,
      dispatch_threads_per_threadgroup: threads,
      threads_per_grid: gridThreads,
      threadgroups_per_grid: groupsOf(grid),
      thread_index_in_threadgroup: [index],
      thread_index_in_simdgroup: [index % simdWidth],
      thread_index_in_quadgroup: [index % quad],
      simdgroup_index_in_threadgroup: [Math.floor(index / simdWidth)],
      quadgroup_index_in_threadgroup: [Math.floor(index / quad)],
      simdgroups_per_threadgroup: [Math.ceil(product(size) / simdWidth)],
      quadgroups_per_threadgroup: [Math.ceil(product(size) / quad)],
      dispatch_simdgroups_per_threadgroup: [Math.ceil(product(threads) / simdWidth)],
      dispatch_quadgroups_per_threadgroup: [Math.ceil(product(threads) / quad)],
      threads_per_simdgroup: [simdWidth],
      thread_execution_width: [simdWidth],
    };
  });
}

describe.each([1, 32] as const)('at width %i', (simdWidth) => {
  const grids: [string, Extent, Extent][] = [
    ['whole threadgroups', [4, 3, 2], [8, 9, 4]],
    ['smaller threadgroups at every edge', [16, 3, 2], [37, 7, 5]],
    ['a grid smaller than a threadgroup', [64, 4, 4], [3, 2, 1]],
    ['one row', [64, 1, 1], [150, 1, 1]],
    ['one thread each', [1, 1, 1], [5, 3, 2]],
  ];

  it.each(grids)('gives every thread its attributes: %s', async (_, threads, gridThreads) => {
    const grid: Grid = { threads, gridThreads, simdWidth };
    const expected = attributesOf(grid);
    const names = Object.entries(defined(expected[0]));
    const width = names.reduce((sum, [, value]) => sum + value.length, 0);
    const stores: string[] = [];
    for (const [name, value] of names)
      for (const axis of value.length === 3 ? ['.x', '.y', '.z'] : [''])
        stores.push(`out[at + ${stores.length}] = ${name}_${axis};`);
    const out = new Uint32Array(width * product(gridThreads));
    await run(cache, {
      source: `kernel void attributes(device uint* out [[buffer(0)]],
          ${names.map(([name, { length }]) => `${length === 3 ? 'uint3' : 'ushort'} ${name}_ [[${name}]]`).join(',\n')}) {
        const uint3 position = thread_position_in_grid_, size = threads_per_grid_;
        const uint at = ${width} * (position.x + size.x * (position.y + size.y * position.z));
        ${stores.join('\n')}
      }`,
      kernel: {
        name: 'attributes',
        threads,
        arguments: [...buffers(1), ...names.map(([name]) => position(name))],
      },
      grid: groupsOf(grid),
      gridThreads,
      data: [out],
      simdWidth,
    });
    expect([...out]).toEqual(expected.flatMap((attributes) => Object.values(attributes).flat()));
  });

  it('runs each thread of a smaller threadgroup once', async () => {
    const counts = new Uint32Array(64);
    await run(cache, {
      source: `kernel void once(device uint* counts [[buffer(0)]], uint2 at [[thread_position_in_grid]],
          uint2 size [[threads_per_grid]]) { counts[at.x + size.x * at.y] += 1; }`,
      kernel: {
        name: 'once',
        threads: [8, 4, 1],
        arguments: [...buffers(1), position('thread_position_in_grid'), position('threads_per_grid')],
      },
      grid: [2, 2, 1],
      gridThreads: [9, 7, 1],
      data: [counts],
      simdWidth,
    });
    expect([...counts]).toEqual([...Array<number>(63).fill(1), 0]);
  });
});

it('opens barriers for the threads that a smaller threadgroup has, 32 lanes', async () => {
  const out = new Uint32Array(3);
  await run(cache, {
    source: `kernel void rows(device uint* out [[buffer(0)]], threadgroup uint* partial [[threadgroup(0)]],
        uint2 local [[thread_position_in_threadgroup]], uint2 size [[threads_per_threadgroup]],
        uint i [[thread_index_in_threadgroup]], uint2 group [[threadgroup_position_in_grid]]) {
      partial[i] = 1 + local.y;
      threadgroup_barrier(mem_flags::mem_threadgroup);
      if (i != 0) return;
      uint total = 0;
      for (uint k = 0; k < size.x * size.y; k++) total += partial[k];
      out[group.x] = total;
    }`,
    kernel: {
      name: 'rows',
      threads: [24, 2, 1],
      arguments: [
        ...buffers(1),
        threadgroup(0, 192),
        position('thread_position_in_threadgroup'),
        position('threads_per_threadgroup'),
        position('thread_index_in_threadgroup'),
        position('threadgroup_position_in_grid'),
      ],
    },
    grid: [3, 1, 1],
    gridThreads: [50, 2, 1],
    data: [out],
  });
  expect([...out]).toEqual([72, 72, 6]);
});

describe('several threads with simdgroups of one lane', () => {
  const barrier = (threads: number, name = 'meet') => ({
    source: `kernel void ${name}(device uint* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
      x[i] = i;
      threadgroup_barrier(mem_flags::mem_device);
    }`,
    kernel: {
      name,
      threads: row(threads),
      arguments: [...buffers(1), position('thread_position_in_grid')],
    } satisfies NativeKernel,
    grid: [8 / threads, 1, 1] as const,
    data: [new Uint32Array(8)],
    simdWidth: 1 as const,
  });

  it('cannot meet at a barrier', async () => {
    expect(await failure(() => run(cache, barrier(8)))).toEqual({
      code: 'UPGC_KERNEL',
      message:
        'kernel meet: the barrier at kernels.metal:5:7 in a threadgroup of 8 threads needs 32-lane mode: simdWidth 32',
    });
  });

  it('and one thread can', async () => {
    const launch = barrier(1);
    await run(cache, launch);
    expect([...defined(launch.data[0])]).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });
});
