import { describe, expect, it } from 'vitest';
import { defined } from '../support.js';
import { bfloat, expectValues, half, runTest, type Case } from './support.js';

/** One float apart at x. */
const ulp = (x: number, mantissa = 23, least = -126): number =>
  2 ** (Math.floor(Math.log2(Math.max(Math.abs(x), 2 ** least))) - mantissa);

const range = (low: number, high: number, count = 257): number[] =>
  Array.from({ length: count }, (_, i) => Math.fround(low + ((high - low) * (i + 0.37)) / count));

// Positive and negative, near zero and large, halves and integers.
const anywhere = [...range(-20, 20), ...range(-0.01, 0.01, 32), 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 7, -8];
const unit = range(-1, 1);
const positive = [...range(0.001, 3), ...range(3, 4000, 32)];

const roundHalfAway = (x: number): number => Math.sign(x) * Math.floor(Math.abs(x) + 0.5);
const roundHalfEven = (x: number): number => {
  const low = Math.floor(x);
  return x - low === 0.5 ? 2 * Math.round(low / 2) : Math.round(x);
};

/** x less the nearest even number. */
const halfTurns = (x: number): number => x - 2 * Math.round(x / 2);
const sinpi = (x: number): number => {
  const r = halfTurns(x);
  return Math.sin(Math.PI * (Math.abs(r) > 0.5 ? Math.sign(r) - r : r));
};
const cospi = (x: number): number => Math.sin(Math.PI * (0.5 - Math.abs(halfTurns(x))));

interface Claim {
  exact: (...x: number[]) => number;
  ulp: number;
  /** A set of numbers per operand; they are combined at random places. */
  domains: number[][];
}
const claim = (exact: (...x: number[]) => number, ulp: number, ...domains: number[][]): Claim => ({
  exact,
  ulp,
  domains,
});
const one = (exact: (x: number) => number, ulp: number, domain: number[]): Claim =>
  claim((x = NaN) => exact(x), ulp, domain);
const two = (exact: (x: number, y: number) => number, ulp: number, x = anywhere, y = anywhere): Claim =>
  claim((a = NaN, b = NaN) => exact(a, b), ulp, x, y);
const three = (exact: (x: number, y: number, z: number) => number, ulp: number, z = anywhere): Claim =>
  claim((a = NaN, b = NaN, c = NaN) => exact(a, b, c), ulp, anywhere, anywhere, z);

// Bounds of the Metal specification's table for single precision, section 8; most functions here are far below them.
const claims: Record<string, Claim> = {
  abs: one(Math.abs, 0, anywhere),
  fabs: one(Math.abs, 0, anywhere),
  sqrt: one(Math.sqrt, 0.5, positive),
  rsqrt: one((x) => 1 / Math.sqrt(x), 2, positive),
  floor: one(Math.floor, 0, anywhere),
  ceil: one(Math.ceil, 0, anywhere),
  trunc: one(Math.trunc, 0, anywhere),
  rint: one(roundHalfEven, 0, anywhere),
  round: one(roundHalfAway, 0, anywhere),
  fract: one((x) => x - Math.floor(x), 0.5, anywhere),
  sign: one(Math.sign, 0, anywhere),
  saturate: one((x) => Math.min(Math.max(x, 0), 1), 0, anywhere),
  exp: one(Math.exp, 1, anywhere),
  exp2: one((x) => 2 ** x, 1, anywhere),
  exp10: one((x) => 10 ** x, 1, anywhere),
  log: one(Math.log, 1, positive),
  log2: one(Math.log2, 1, positive),
  log10: one(Math.log10, 2, positive),
  sin: one(Math.sin, 1, anywhere),
  cos: one(Math.cos, 1, anywhere),
  tan: one(Math.tan, 1.5, anywhere),
  asin: one(Math.asin, 1, unit),
  acos: one(Math.acos, 1, unit),
  atan: one(Math.atan, 1, anywhere),
  sinh: one(Math.sinh, 3, anywhere),
  cosh: one(Math.cosh, 3, anywhere),
  tanh: one(Math.tanh, 1.6, anywhere),
  asinh: one(Math.asinh, 3, anywhere),
  acosh: one(
    Math.acosh,
    3,
    positive.map((x) => Math.fround(1 + x)),
  ),
  atanh: one(Math.atanh, 3, unit),
  sinpi: one(sinpi, 1, anywhere),
  cospi: one(cospi, 1, anywhere),
  tanpi: one((x) => sinpi(x) / cospi(x), 3, anywhere),
  pow: two((x, y) => x ** y, 1, positive, unit),
  powr: two((x, y) => x ** y, 1, positive, unit),
  fmod: two((x, y) => x % y, 0),
  atan2: two(Math.atan2, 1),
  fmin: two(Math.min, 0),
  fmax: two(Math.max, 0),
  min: two(Math.min, 0),
  max: two(Math.max, 0),
  fdim: two((x, y) => Math.max(x - y, 0), 0.5),
  divide: two((x, y) => x / y, 0.5),
  copysign: two((x, y) => (y < 0 || Object.is(y, -0) ? -Math.abs(x) : Math.abs(x)), 0),
  step: two((edge, x) => (x < edge ? 0 : 1), 0),
  fma: three((x, y, z) => x * y + z, 0.51),
  clamp: three((x, y, z) => Math.min(Math.max(x, y), z), 0),
  fmin3: three(Math.min, 0),
  fmax3: three(Math.max, 0),
  min3: three(Math.min, 0),
  max3: three(Math.max, 0),
  median3: three((x, y, z) => defined([x, y, z].sort((a, b) => a - b)[1]), 0),
  fmedian3: three((x, y, z) => defined([x, y, z].sort((a, b) => a - b)[1]), 0),
};

const samples = 320;
const names = Object.keys(claims);

/** Three operands per function and sample. */
function operands(): Float32Array {
  const x = new Float32Array(names.length * samples * 3);
  names.forEach((name, f) => {
    defined(claims[name]).domains.forEach((domain, k) => {
      const stride = [1, 7, 11][k] ?? 1;
      for (let i = 0; i < samples; i++)
        x[(f * samples + i) * 3 + k] = defined(domain[(i * stride) % domain.length]);
    });
  });
  return x;
}

describe.each([1, 32] as const)('functions at width %i', (simdWidth) => {
  it('are as exact as Metal promises, for float, half, bfloat and vectors', async () => {
    const x = operands();
    const count = names.length * samples;
    const [float, halfs, bfloats, differing] = [0, 1, 2, 3].map(() => new Float32Array(count)) as [
      Float32Array,
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const call = (name: string, f: number): string => {
      const n = defined(claims[name]).domains.length;
      const list = (type: string): string =>
        Array.from({ length: n }, (_, k) => `${type}(x[${k}])`).join(', ');
      return `{
        device const float* x = operands + ${3 * f * samples} + 3 * i;
        const uint at = ${f * samples} + i;
        const float y = ${name}(${list('float')});
        y32[at] = y;
        y16[at] = float(${name}(${list('half')}));
        yb16[at] = float(bfloat(${name}(${list('bfloat')})));
        const float3 v = precise::${name}(${list('float3')}), w = fast::${name}(${list('float3')});
        differing[at] = float(as_type<uint>(v.x) != as_type<uint>(y)) + float(as_type<uint>(w.z) != as_type<uint>(y));
      }`;
    };
    await runTest(
      `kernel void test(device const float* operands [[buffer(0)]], device float* y32 [[buffer(1)]],
        device float* y16 [[buffer(2)]], device float* yb16 [[buffer(3)]], device float* differing [[buffer(4)]],
        uint i [[thread_position_in_grid]]) { ${names.map(call).join('\n')} }`,
      [x, float, halfs, bfloats, differing],
      { simdWidth, threads: simdWidth, grid: samples / simdWidth, positions: ['thread_position_in_grid'] },
    );
    const worst: Record<string, number[]> = {};
    names.forEach((name, f) => {
      const { exact, domains, ulp: allowed } = defined(claims[name]);
      const errors = [0, 0, 0, 0];
      for (let i = 0; i < samples; i++) {
        const at = f * samples + i;
        const arguments_ = domains.map((_, k) => defined(x[at * 3 + k]));
        const note = (kind: number, y: number, expected: number, unit: number): void => {
          const same = Object.is(y, expected) || y === expected;
          errors[kind] = Math.max(errors[kind] ?? 0, same ? 0 : Math.abs(y - expected) / unit);
          if (Number.isNaN(y) !== Number.isNaN(expected)) errors[kind] = Infinity;
        };
        const expected = exact(...arguments_);
        note(0, defined(float[at]), Math.abs(expected) < 2 ** -126 ? 0 : expected, ulp(expected));
        // Computed in float, these may be off by a rounding and what the float is off.
        const expected16 = exact(...arguments_.map(half));
        if (Math.abs(expected16) < 60000)
          note(1, defined(halfs[at]), expected16, ulp(expected16, 10, -14) * (0.5 + allowed / 4096 + 1e-6));
        const expectedBf16 = exact(...arguments_.map(bfloat));
        note(2, defined(bfloats[at]), expectedBf16, ulp(expectedBf16, 7) * (0.5 + allowed / 32768 + 1e-6));
        errors[3] = (errors[3] ?? 0) + defined(differing[at]);
      }
      const [ulps = NaN, of16 = NaN, ofBf16 = NaN, ofVectors = NaN] = errors;
      if (process.env['UPGC_MEASURE']) console.log(name, errors);
      if (!(ulps <= allowed && of16 <= 1 && ofBf16 <= 1 && ofVectors === 0)) worst[name] = errors;
    });
    expect(worst).toEqual({});
  });

  it('have the special values and second results of Metal', () => expectValues(special, simdWidth));
});

const f = 'float x = 5.75f * one;';
const special: Case[] = [
  ['fmin(NAN, x) + fmax(x, NAN)', 'float', 11.5, f],
  ['sinpi(2.0f * x) + cospi(0.5f)', 'float', -1, f],
  ['tanpi(0.25f)', 'float', 1],
  ['powr(-x, 2.0f)', 'float', NaN, f],
  ['mix(x, 10.0f, 0.5f)', 'float', 7.875, f],
  ['mix(float2(0, 1), float2(10), 0.5f)', 'float2', [5, 5.5]],
  ['smoothstep(0.0f, 2.0f, float2(0.5f, 3))', 'float2', [0.15625, 1]],
  ['step(0.5f, float2(0.25f, 1))', 'float2', [0, 1]],
  ['max(0.0f, float2(-1, 1))', 'float2', [0, 1]],
  ['clamp(float3(-1, 0.5f, 2), 0.0f, 1.0f)', 'float3', [0, 0.5, 1]],
  ['rest + whole * 10', 'float', 50.75, `${f} float whole; float rest = modf(x, whole);`],
  ['modf(-INFINITY, whole)', 'float', -0, 'float whole;'],
  ['whole', 'half2', [1, -2], 'half2 whole; modf(half2(1.5h, -2.5h), whole);'],
  ['fraction * 100 + exponent', 'float', 74.875, `${f} int exponent; float fraction = frexp(x, exponent);`],
  ['exponent', 'int2', [3n, -1n], `${f} int2 exponent; frexp(float2(x, 0.25f), exponent);`],
  ['ldexp(x, -2)', 'float', 1.4375, f],
  ['ldexp(float2(x), int2(1, 2))', 'float2', [11.5, 23], f],
  ['ilogb(x)', 'int', 2n, f],
  ['ilogb(float2(0, 1e10f))', 'int2', [-(2n ** 31n), 33n]],
  ['s * s + c * c', 'float', 1, 'float c; float s = sincos(0.0f * one, c);'],
  ['c', 'half2', [1, 1], 'half2 c; sincos(half2(0), c);'],
  ['nextafter(x, 9.0f) - x', 'float', 2 ** -21, f],
  ['nextafter(1.0h, 0.0h)', 'half', 1 - 2 ** -11],
  ['nextafter(-1.0f, -2.0f)', 'float', -(1 + 2 ** -23)],
  ['as_type<uint>(nextafter(0.0f, -1.0f))', 'uint', 0x80000001n],
  ['nextafter(half2(1, 2), half2(2, 2))', 'half2', [1 + 2 ** -10, 2]],
  ['isnan(float2(NAN, x)) || isinf(float2(1, INFINITY))', 'bool2', [1n, 1n], f],
  ['isfinite(half2(1, INFINITY))', 'bool2', [1n, 0n]],
  ['isnormal(float4(1, 0, NAN, INFINITY))', 'bool4', [1n, 0n, 0n, 0n]],
  ['isnormal(half2(0.00001h, 1))', 'bool2', [0n, 1n]],
  ['signbit(float2(-0.0f, x))', 'bool2', [1n, 0n], f],
  ['isordered(x, 1.0f) && isunordered(x, NAN)', 'bool', 1n, f],
  ['select(float2(1, 2), float2(3, 4), bool2(false, true))', 'float2', [1, 4]],
  ['select(1, 2, one == 1)', 'int', 2n],
  [
    'all(bool3(true)) && any(bool2(false, true)) && !all(bool2(false, true)) && !any(bool4(false))',
    'bool',
    1n,
  ],
  ['cross(float3(1, 2, 3), float3(4, 5, 6))', 'float3', [-3, 6, -3]],
  ['distance(float2(1, 1), float2(4, 5)) + distance_squared(float2(1, 1), float2(4, 5))', 'float', 30],
  ['length_squared(half2(3, 4))', 'half', 25],
  ['normalize(float2(3, 4)) * 5', 'float2', [3, 4].map(Math.fround)],
  ['fast::normalize(float4(0, 0, 0, x)).w', 'float', 1, f],
  ['reflect(float2(1, -1), float2(0, 1))', 'float2', [1, 1]],
  ['refract(float2(0, -1), float2(0, 1), 0.5f)', 'float2', [0, -1]],
  ['refract(float2(1, 0), float2(0, 1), 2.0f)', 'float2', [0, 0]],
  ['faceforward(float2(0, 1), float2(1, 1), float2(0, 1))', 'float2', [-0, -1]],
  ['dot(half3(1, 2, 3), half3(1))', 'half', 6],
  ['precise::sqrt(x + 0.5f) + fast::max(1.0f, 2.0f) + precise::divide(1.0f, 2.0f)', 'float', 5, f],
];
