import { describe, expect, it } from 'vitest';
import { buffers, position, row, run, temporaryFolder } from './support.js';

const cache = temporaryFolder();

/** `metal::name` of every x, at simdgroup width 1 and so through clang's vectoriser. */
async function evaluate(name: string, x: Float32Array): Promise<Float32Array> {
  const y = new Float32Array(x.length);
  await run(cache, {
    source: `kernel void map(device const float* x [[buffer(0)]], device float* y [[buffer(1)]],
      uint i [[thread_position_in_grid]]) { y[i] = metal::${name}(x[i]); }`,
    kernel: { name: 'map', threads: row(1), arguments: [...buffers(2), position('thread_position_in_grid')] },
    grid: [x.length, 1, 1],
    data: [x, y],
    simdWidth: 1,
  });
  return y;
}

/** Every `stride`-th float from `low` to `high` (same sign), by their bit patterns: dense in each binade. */
function floats(low: number, high: number, stride: number): Float32Array {
  const bits = new Uint32Array(Float32Array.of(low, high).buffer);
  const [first, last] = [Math.min(...bits), Math.max(...bits)];
  const patterns = Uint32Array.from(
    { length: Math.floor((last - first) / stride) + 1 },
    (_, i) => first + i * stride,
  );
  return new Float32Array(patterns.buffer);
}

/** Distance between the floats around x. */
const ulp = (x: number): number => 2 ** (Math.floor(Math.log2(Math.max(Math.abs(x), 2 ** -126))) - 23);

// The largest error in ulp that elementary.h states, and where the function is to be measured.
const claims: Record<string, { exact: (x: number) => number; error: number; ranges: [number, number][] }> = {
  exp: {
    exact: Math.exp,
    error: 1.0,
    ranges: [
      [1e-30, 88.7],
      [-1e-30, -87.3],
    ],
  },
  exp2: {
    exact: (x) => 2 ** x,
    error: 1.0,
    ranges: [
      [1e-30, 127.99],
      [-1e-30, -125.9],
    ],
  },
  log: {
    exact: Math.log,
    error: 1.0,
    ranges: [
      [1.2e-38, 3.4e38],
      [0.5, 2],
    ],
  },
  tanh: {
    exact: Math.tanh,
    error: 1.6,
    ranges: [
      [1e-30, 20],
      [-0.1, -2],
    ],
  },
};

describe('inline elementary functions', () => {
  for (const [name, { exact, error, ranges }] of Object.entries(claims)) {
    it(`${name} is within ${error} ulp of float64`, async () => {
      let worst = 0;
      for (const [low, high] of ranges) {
        const x = floats(low, high, 2047);
        const y = await evaluate(name, x);
        x.forEach((value, i) => {
          const expected = exact(value);
          worst = Math.max(worst, Math.abs((y[i] ?? NaN) - expected) / ulp(expected));
        });
      }
      if (process.env['UPGC_MEASURE']) console.log(name, worst.toFixed(3), 'ulp');
      expect(worst).toBeLessThanOrEqual(error);
    });
  }

  it('flushes subnormal numbers to zero, as Apple GPUs do', async () => {
    expect([...(await evaluate('exp', Float32Array.of(-90, -103)))]).toEqual([0, 0]);
    expect([...(await evaluate('log', Float32Array.of(1e-40)))]).toEqual([-Infinity]);
  });

  it('has the right limits', async () => {
    const x = Float32Array.of(0, -0, 1, Infinity, -Infinity, NaN, 1e4, -1e4, 3.4e38, -3.4e38, -1);
    expect([...(await evaluate('exp', x))]).toEqual([
      1,
      1,
      Math.fround(Math.E),
      Infinity,
      0,
      NaN,
      Infinity,
      0,
      Infinity,
      0,
      Math.fround(Math.exp(-1)),
    ]);
    expect([...(await evaluate('exp2', x))]).toEqual([
      1,
      1,
      2,
      Infinity,
      0,
      NaN,
      Infinity,
      0,
      Infinity,
      0,
      0.5,
    ]);
    expect([...(await evaluate('tanh', x))]).toEqual([
      0,
      -0,
      Math.fround(Math.tanh(1)),
      1,
      -1,
      NaN,
      1,
      -1,
      1,
      -1,
      Math.fround(Math.tanh(-1)),
    ]);
    expect([...(await evaluate('log', x))].map((v) => Math.round(v * 100) / 100)).toEqual([
      -Infinity,
      -Infinity,
      0,
      Infinity,
      NaN,
      NaN,
      9.21,
      NaN,
      88.72,
      NaN,
      NaN,
    ]);
  });
});

it('has the rest of the Metal library', async () => {
  const cases: [string, number][] = [
    ['metal::precise::sqrt(2.25f)', 1.5],
    ['metal::fast::exp(0.0f)', 1],
    ['rsqrt(0.25f)', 2],
    ['pow(3.0f, 4.0f)', 81],
    ['metal::sin(0.0f) + cos(0.0f) + tan(0.0f)', 1],
    ['floor(-1.5f) + ceil(1.2f) + trunc(-1.7f)', -1],
    ['round(2.5f) * 10.0f + rint(2.5f)', 32],
    ['fma(2.0f, 3.0f, 4.0f)', 10],
    ['metal::min(1.0f, -2.0f) + max(3, 4) + min(5u, 6u)', 7],
    ['clamp(7.5f, 0.0f, 2.0f)', 2],
    ['mix(10.0f, 20.0f, 0.25f)', 12.5],
    ['sign(-3.0f) + abs(-4) + fabs(-5.0f)', 8],
    ['fmin(NAN, 3.0f) + fmax(4.0f, NAN)', 7],
    ['isnan(NAN) && isinf(-INFINITY) && !isnan(1.0f) ? 1.0f : 0.0f', 1],
    ['step(1.0f, 2.0f) + step(2.0f, 1.0f)', 1],
    ['smoothstep(0.0f, 1.0f, 0.5f)', 0.5],
    ['float(popcount(0xf0f0u) + clz(1u) + ctz(8u) + clz(ushort(1)))', 8 + 31 + 3 + 15],
    ['float(popcount(~0ul) + popcount(0x10001ul))', 66],
    ['float(mulhi(0xffffffffu, 0xfffffffeu) == 0xfffffffdu) + float(mulhi(0x80000000u, 6u))', 1 + 3],
    ['float(mulhi(-3, 0x40000000)) + float(mulhi(ushort(0xffff), ushort(0x8000)))', -1 + 0x7fff],
    ['mulhi(~0ul, ~0ul) == ~0ul - 1 && mulhi(-1l, 1l) == -1l ? 1.0f : 0.0f', 1],
    ['float((0x12345678u >> 8) << 4 & 0xfff0u) + float((1ul << 40) >> 36)', 0x4560 + 16],
    ['float(uint(0xdeadbeefcafeul * 0x9e3779b97f4a7c15ul >> 61))', 5],
    ['select(1.0f, 2.0f, true)', 2],
    ['float(metal::select(7u, 9u, 3u < 2u) + metal::clamp(12u, 3u, 10u))', 17],
    ['metal::fma(2.0f, 3.0f, 4.0f) + metal::clamp(-1.0f, 0.5f, 1.0f)', 10.5],
    ['metal::precise::log(1.0f) + metal::log(1.0f) + metal::precise::exp(0.0f)', 1],
    ['log2(8.0f) + log10(1000.0f)', 6],
    ['dot(float3(1.0f, 2.0f, 3.0f), float3(4.0f, 5.0f, 6.0f))', 32],
    ['length(float2(3.0f, 4.0f))', 5],
    ['(float4(1.0f) * 2.0f + float4(float2(1.0f, 2.0f), 3.0f, 4.0f)).w', 6],
    ['float(int4(7, 8, 9, 10)[2] % 4)', 1],
    ['any(uint2(1, 5) > 4u) && !all(uint2(1, 5) > 4u) ? 1.0f : 0.0f', 1],
    ['metal::exp(half3(0.0h)).z + float(half(0.5h) * 3.0h)', 2.5],
    ['max(half4(1.0h), 2.0h).x', 2],
    ['as_type<float>(0x3f800000u) + float(as_type<uint>(0.0f))', 1],
    ['float(numeric_limits<int>::max() == INT_MAX) + float(numeric_limits<ushort>::max() == 65535)', 2],
    ['numeric_limits<int>::min() == INT_MIN && numeric_limits<ulong>::max() == ~0ul ? 1.0f : 0.0f', 1],
    ['M_PI_F', Math.fround(Math.PI)],
    ['float(sizeof(float3) + sizeof(half4) + sizeof(bool2) + sizeof(ulong))', 16 + 8 + 2 + 8],
  ];
  const out = new Float32Array(cases.length);
  await run(cache, {
    source: `kernel void library(device float* out [[buffer(0)]]) {
      ${cases.map(([expression], i) => `out[${i}] = ${expression};`).join('\n')}
    }`,
    kernel: { name: 'library', threads: row(1), arguments: buffers(1) },
    data: [out],
  });
  expect(cases.map(([expression], i) => [expression, out[i]])).toEqual(cases);
});
