import { describe, expect, it } from 'vitest';
import type { Launch } from 'upgc/metal-cpu';
import { at, floats, integers, open, runEveryWay, uniform } from './support.js';

/** Kernels as others write them, whose results are exact: scans, sorting, counting, moving, filtering of pixels. */

/** A simdgroup's lanes, and threads of a threadgroup for a kernel that is written for any number of them. */
const widths = [
  { simdWidth: 32, threads: 256 },
  { simdWidth: 1, threads: 1 },
] as const;

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

function prefixSums(values: readonly number[]): number[] {
  let sum = 0;
  return values.map((value) => (sum += value));
}

/** `count` of something, in whole threadgroups. */
const rounded = (count: number, threads: number): number => Math.ceil(count / threads) * threads;

describe.each(widths)('with simdgroups of $simdWidth, $threads threads', ({ simdWidth, threads }) => {
  describe('scan', () => {
    it.each([
      { kernel: 'inclusive_uint', width: 1, reverse: false, apart: undefined },
      { kernel: 'inclusive_uint', width: 700, reverse: true, apart: undefined },
      { kernel: 'exclusive_uint', width: 257, reverse: false, apart: 2 },
      { kernel: 'exclusive_uint', width: 33, reverse: true, apart: 3 },
    ])('$kernel of rows of $width, reverse $reverse, $apart apart', async (one) => {
      const { kernel, width, reverse, apart = 1 } = one;
      const rows = 3;
      const constants = { reverse, ...(one.apart === undefined ? {} : { stride_constant: apart }) };
      const input = Uint32Array.from(integers(rows * width * apart, 0, 1000));
      const { out } = await runEveryWay(
        await open('scan', { simdWidth, constants }),
        kernel,
        () => ({ out: new Uint32Array(input.length) }),
        { grid: threads * rows, threads, buffers: { in: input, width }, threadgroup: { totals: 48 } },
      );
      const expected = new Uint32Array(input.length);
      for (const row of range(rows)) {
        const columns = range(width).map((column) => (row * width + column) * apart);
        if (reverse) columns.reverse();
        const sums = prefixSums(columns.map((column) => at(input, column)));
        columns.forEach((column, i) => {
          expected[column] = kernel === 'inclusive_uint' ? at(sums, i) : i === 0 ? 0 : at(sums, i - 1);
        });
      }
      expect(out).toEqual(expected);
    });
  });

  it.each([1, 2, 1000, 2500])('bitonic sort of blocks of %i keys', async (count) => {
    const before = floats(count, 2).map((x, i) => (i % 7 === 0 ? Math.trunc(x) : x));
    before[count >> 1] = -Infinity;
    const { keys, values } = await runEveryWay(
      await open('bitonic', { simdWidth }),
      'sort_blocks',
      () => ({ keys: before.slice(), values: Uint32Array.from(range(count)) }),
      { grid: threads * 4, threads, buffers: { count } },
    );
    const negative = (x: number): boolean => x < 0 || Object.is(x, -0);
    const order = range(Math.ceil(count / 1024)).flatMap((block) =>
      range(count)
        .slice(1024 * block, 1024 * (block + 1))
        .sort((i, j) => {
          const [a, b] = [at(before, i), at(before, j)];
          return a - b || Number(negative(b)) - Number(negative(a)) || i - j;
        }),
    );
    expect([...values]).toEqual(order);
    expect(keys).toEqual(Float32Array.from(order, (i) => at(before, i)));
  });

  describe('histogram', () => {
    it.each([1, 100, 5000])('of %i pixels', async (count) => {
      const pixels = Uint8Array.from(integers(4 * count, 0, 256, 3), (value, i) =>
        i % 4 === 3 ? value >> 6 : value,
      );
      const { histogram, transparent } = await runEveryWay(
        await open('histogram', { simdWidth }),
        'histogram_rgb',
        () => ({ histogram: new Uint32Array(3 * 256), transparent: new Uint32Array(1) }),
        { grid: 2 * threads, threads, buffers: { pixels, count } },
      );
      const expected = new Uint32Array(3 * 256);
      let clear = 0;
      for (const i of range(count)) {
        if (at(pixels, 4 * i + 3) === 0) clear++;
        else
          for (const c of range(3))
            expected[256 * c + at(pixels, 4 * i + c)] = at(expected, 256 * c + at(pixels, 4 * i + c)) + 1;
      }
      expect(histogram).toEqual(expected);
      expect([...transparent]).toEqual([clear]);
    });

    it.each([1, 33, 300])('extremes of %i floats', async (count) => {
      const values = floats(count, 4);
      const { least, greatest } = await runEveryWay(
        await open('histogram', { simdWidth }),
        'extremes',
        () => ({ least: Int32Array.of(2 ** 31 - 1), greatest: Int32Array.of(-(2 ** 31)) }),
        { grid: count, threads: threads === 1 ? 1 : 64, buffers: { values } },
      );
      const float = (ordered: Int32Array): number => {
        const bits = ordered.map((word) => (word < 0 ? word ^ 0x7fffffff : word));
        return at(new Float32Array(bits.buffer), 0);
      };
      expect([float(least), float(greatest)]).toEqual([Math.min(...values), Math.max(...values)]);
    });
  });

  describe('transposition', () => {
    const tiles = { transpose_float: 16, transpose_uchar: 16, transpose_uint2: 8 };
    it.each([
      ['transpose_float', 1, 1, 1],
      ['transpose_float', 33, 70, 2],
      ['transpose_uchar', 17, 5, 3],
      ['transpose_uint2', 48, 13, 1],
    ] as const)('%s of %i x %i, %i of them', async (kernel, width, height, depth) => {
      const count = width * height * depth;
      const make = {
        transpose_float: () => new Float32Array(count),
        transpose_uchar: () => new Uint8Array(count),
        transpose_uint2: () => new BigUint64Array(count),
      }[kernel];
      const input = make();
      range(count).forEach((i) => {
        if (input instanceof BigUint64Array) input[i] = (BigInt(i) << 32n) | 7n;
        else input[i] = i;
      });
      const tile = threads === 1 ? 1 : tiles[kernel];
      const { out } = await runEveryWay(
        await open('transposition', { simdWidth }),
        kernel,
        () => ({ out: make() }),
        {
          grid: [width, height, depth],
          threads: [tile, tile],
          buffers: { in: input },
        },
      );
      const expected = range(count).map((i) => {
        const [y, x] = [i % height, Math.floor(i / height) % width];
        return input[(Math.floor(i / height / width) * height + y) * width + x];
      });
      expect([...out]).toEqual(expected);
    });
  });

  describe('prefix sums by look-back', () => {
    it.each([1, 256, 1000, 5000])('of %i numbers', async (count) => {
      const input = Uint32Array.from(integers(count, 0, 1000, 5));
      const groups = Math.ceil(count / threads);
      const { out, state } = await runEveryWay(
        await open('look_back', { simdWidth }),
        'prefix_sum_look_back',
        () => ({ out: new Uint32Array(count), state: new Uint32Array(1 + groups) }),
        { grid: groups * threads, threads, buffers: { in: input, count } },
      );
      const expected = prefixSums([...input]);
      expect([...out]).toEqual(expected);
      expect(at(state, 0)).toBe(groups);
      expect(at(state, groups) % 2 ** 30).toBe(at(expected, count - 1));
    });

    // Where each simdgroup's part goes is left to the order in which they ask.
    it.each([1, 65, 1000])('keeps the positive of %i numbers', async (count) => {
      const input = Int32Array.from(integers(count, -50, 50, 6));
      const library = await open('look_back', { simdWidth });
      const positive = [...input].filter((value) => value > 0);
      const orders = new Set<string>();
      for (const way of [{}, { shuffle: 1 }, { osThreads: 2 }]) {
        const [out, kept] = [new Int32Array(count), new Uint32Array(1)];
        await library.run('keep_positive', {
          grid: rounded(count, threads),
          threads,
          buffers: { in: input, out, kept, count },
          ...way,
        });
        const found = [...out.subarray(0, at(kept, 0))];
        expect(found.sort((a, b) => a - b)).toEqual([...positive].sort((a, b) => a - b));
        expect([...out.subarray(at(kept, 0))].every((value) => value === 0)).toBe(true);
        if (!('shuffle' in way)) expect([...out].slice(0, at(kept, 0))).toEqual(positive);
        orders.add(out.join());
      }
      if (count === 1000) expect(orders.size).toBe(2);
    });
  });

  describe('blur', () => {
    it.each([
      [1, 1],
      [5, 3],
      [37, 22],
    ])('of %i x %i pixels', async (width, height) => {
      const { bytes, image, pixel } = picture(width, height);
      const { target } = await runEveryWay(
        await open('blur', { simdWidth }),
        'blur',
        () => ({ target: new Uint8Array(bytes.length) }),
        // Without barriers, threads of a threadgroup can run one after another.
        { grid: [rounded(width, 8), rounded(height, 4)], threads: [8, 4], buffers: { source: bytes, image } },
      );
      const weights = [1, 4, 6, 4, 1];
      const expected = new Uint8Array(bytes.length);
      for (const y of range(height))
        for (const x of range(width)) {
          const near = weights.flatMap((row, dy) =>
            weights.map((column, dx) => ({ weight: row * column, of: pixel(x + dx - 2, y + dy - 2) })),
          );
          const alpha = near.reduce((sum, { weight, of }) => sum + weight * at(of, 3), 0);
          const colour = (c: number): number =>
            near.reduce((sum, { weight, of }) => sum + weight * at(of, c) * at(of, 3), 0);
          const place = 4 * (y * (width + 3) + x);
          for (const c of range(3))
            expected[place + c] = alpha === 0 ? 0 : Math.floor((colour(c) + Math.floor(alpha / 2)) / alpha);
          expected[place + 3] = Math.floor((alpha + 128) / 256);
        }
      expect(target).toEqual(expected);
    });
  });
});

/** RGBA pixels in rows of three more than the width, and the pixel nearest to a place. */
function picture(width: number, height: number) {
  const row = width + 3;
  const bytes = Uint8Array.from(integers(4 * row * height, 0, 256, 7));
  const nearest = (x: number, end: number): number => Math.min(Math.max(x, 0), end - 1);
  const pixel = (x: number, y: number): Uint8Array => {
    const start = 4 * (nearest(y, height) * row + nearest(x, width));
    return bytes.subarray(start, start + 4);
  };
  // `uint2 size; uint row_pixels;`, as large as the alignment of uint2 makes it.
  return { bytes, pixel, image: Uint32Array.of(width, height, row, 0) };
}

it.each([
  [1, 1],
  [8, 4],
  [29, 18],
])('edges of %i x %i pixels, with a halo in threadgroup memory', async (width, height) => {
  const { bytes, image, pixel } = picture(width, height);
  const { target } = await runEveryWay(
    await open('blur'),
    'edges',
    () => ({ target: new Uint8Array(bytes.length) }),
    {
      grid: [rounded(width, 8), rounded(height, 4)],
      threads: [8, 4],
      buffers: { source: bytes, image },
    },
  );
  const luma = (x: number, y: number): number => {
    const [r = 0, g = 0, b = 0] = pixel(x, y);
    return Math.floor((54 * r + 183 * g + 19 * b) / 256);
  };
  const expected = new Uint8Array(bytes.length);
  for (const y of range(height))
    for (const x of range(width)) {
      const along = (sign: number): number =>
        luma(x + sign, y - 1) + 2 * luma(x + sign, y) + luma(x + sign, y + 1);
      const down = (sign: number): number =>
        luma(x - 1, y + sign) + 2 * luma(x, y + sign) + luma(x + 1, y + sign);
      const strength = Math.min(255, Math.abs(along(1) - along(-1)) + Math.abs(down(1) - down(-1)));
      expected.set([strength, 0, 255 - strength, 255], 4 * (y * (width + 3) + x));
    }
  expect(target).toEqual(expected);
});

it.each([4, 100, 512])('means of quads of %i pixels, and a ballot of the bright ones', async (count) => {
  const source = Uint8Array.from(uniform(4 * count, 8), (x) => 256 * x);
  const { target, bright } = await runEveryWay(
    await open('blur'),
    'quarter',
    () => ({ target: new Uint8Array(count), bright: new Uint32Array(Math.ceil(count / 32)) }),
    { grid: count, threads: 32, buffers: { source } },
  );
  const means = range(count).map((i) => {
    const [quad, channel] = [i >> 2, i % 4];
    return (range(4).reduce((sum, k) => sum + at(source, 16 * quad + 4 * k + channel), 0) + 2) >> 2;
  });
  expect([...target]).toEqual(means);
  const masks = new Uint32Array(bright.length);
  for (const quad of range(count / 4))
    if (at(means, 4 * quad + 1) >= 128)
      masks[quad >> 3] = (at(masks, quad >> 3) | (1 << (4 * (quad % 8)))) >>> 0;
  expect(bright).toEqual(masks);
});

/** Enough of every kernel with barriers to be launched with several threads. */
const withBarriers: readonly (readonly [file: string, kernel: string, buffers: readonly string[]])[] = [
  ['reduction', 'sum_float', ['values', 'partial_results', 'count']],
  ['scan', 'inclusive_uint', ['in', 'out', 'width']],
  ['matmul', 'matmul_tiled', ['a', 'b', 'c', 'sizes']],
  ['bitonic', 'sort_blocks', ['keys', 'values', 'count']],
  ['histogram', 'histogram_rgb', ['pixels', 'histogram', 'transparent', 'count']],
  ['softmax', 'softmax_float16', ['in', 'out', 'axis_size']],
  ['layer_norm', 'layer_norm_bf16', ['x', 'y', 'affine', 'params']],
  ['transposition', 'transpose_uchar', ['in', 'out']],
  ['blur', 'edges', ['source', 'target', 'image']],
  ['look_back', 'prefix_sum_look_back', ['in', 'out', 'state', 'count']],
];

it.each(withBarriers)('%s cannot run its barriers with simdgroups of 1', async (file, kernel, buffers) => {
  const constants = { scan: { reverse: false }, softmax: { causal: false } }[file] ?? {};
  const library = await open(file, { simdWidth: 1, constants });
  const launch: Launch = {
    grid: [2, 2],
    threads: [2, 2],
    buffers: Object.fromEntries(
      buffers.map((name) => [name, new Uint32Array(2048).fill(name === 'state' ? 0 : 1)]),
    ),
    ...(file === 'scan' ? { threadgroup: { totals: 256 } } : {}),
  };
  // The first barrier of the kernel, or of a function that it calls.
  await expect(library.run(kernel, launch)).rejects.toThrow(
    new RegExp(
      `^kernel ${kernel}: the barrier at test/metal-cpu/kernels/${file}\\.metal:\\d+:\\d+ in a threadgroup of 4 threads ` +
        'needs 32-lane mode: simdWidth 32$',
    ),
  );
});
