import { describe, expect, it } from 'vitest';
import { defined } from '../support.js';
import { expectValues, runTest, type Case } from './support.js';

/** A number of `bits` bits as an integer type reads it. */
interface Type {
  name: string;
  bits: number;
  signed: boolean;
}
const types: Type[] = [
  ['char', 8],
  ['short', 16],
  ['int', 32],
  ['long', 64],
].flatMap(([name, bits]) => [
  { name: String(name), bits: Number(bits), signed: true },
  { name: `u${String(name)}`, bits: Number(bits), signed: false },
]);

const wrap = (type: Type, x: bigint): bigint =>
  type.signed ? BigInt.asIntN(type.bits, x) : BigInt.asUintN(type.bits, x);
const top = (type: Type): bigint => 2n ** BigInt(type.bits - Number(type.signed)) - 1n;
const bottom = (type: Type): bigint => (type.signed ? -top(type) - 1n : 0n);
const saturated = (type: Type, x: bigint): bigint =>
  x > top(type) ? top(type) : x < bottom(type) ? bottom(type) : x;
const floorHalf = (x: bigint): bigint => (x - (x & 1n)) / 2n;
const bitsOf = (type: Type, x: bigint): string =>
  BigInt.asUintN(type.bits, x).toString(2).padStart(type.bits, '0');
const reversed = (text: string): string => Array.from(text).reverse().join('');
const mulhi = (type: Type, x: bigint, y: bigint): bigint => (x * y) >> BigInt(type.bits);
const median = (...x: bigint[]): bigint => defined(x.sort((a, b) => (a < b ? -1 : Number(a > b)))[1]);
const least = (...x: bigint[]): bigint => x.reduce((a, b) => (a < b ? a : b));
const greatest = (...x: bigint[]): bigint => x.reduce((a, b) => (a > b ? a : b));

/** Metal expression of x, y and z, and the same in mathematics; the result wraps into the type. */
const functions: Record<string, (type: Type, x: bigint, y: bigint, z: bigint) => bigint> = {
  'popcount(x)': (type, x) => BigInt(bitsOf(type, x).replaceAll('0', '').length),
  'clz(x)': (type, x) => BigInt((bitsOf(type, x) + '1').indexOf('1')),
  'ctz(x)': (type, x) => BigInt((reversed(bitsOf(type, x)) + '1').indexOf('1')),
  'reverse_bits(x)': (type, x) => BigInt('0b' + reversed(bitsOf(type, x))),
  'abs(x)': (_, x) => (x < 0n ? -x : x),
  'mulhi(x, y)': mulhi,
  'madhi(x, y, z)': (type, x, y, z) => mulhi(type, x, y) + z,
  'madsat(x, y, z)': (type, x, y, z) => saturated(type, x * y + z),
  'addsat(x, y)': (type, x, y) => saturated(type, x + y),
  'subsat(x, y)': (type, x, y) => saturated(type, x - y),
  'hadd(x, y)': (_, x, y) => floorHalf(x + y),
  'rhadd(x, y)': (_, x, y) => floorHalf(x + y + 1n),
  'absdiff(x, y)': (_, x, y) => (x < y ? y - x : x - y),
  'rotate(x, y)': (type, x, y) => {
    const by = Number(BigInt.asUintN(16, y)) % type.bits;
    const bits = bitsOf(type, x);
    return BigInt('0b' + bits.slice(by) + bits.slice(0, by));
  },
  'min(x, y)': (_, x, y) => least(x, y),
  'max(x, y)': (_, x, y) => greatest(x, y),
  'clamp(x, min(y, z), max(y, z))': (_, x, y, z) => median(x, y, z),
  'min3(x, y, z)': (_, x, y, z) => least(x, y, z),
  'max3(x, y, z)': (_, x, y, z) => greatest(x, y, z),
  'median3(x, y, z)': (_, x, y, z) => median(x, y, z),
  'extract_bits(x, 2, 5)': (type, x) => wrap({ ...type, bits: 5 }, x >> 2n),
  'insert_bits(x, y, 3, 4)': (_, x, y) => (x & ~(15n << 3n)) | ((y & 15n) << 3n),
};
const expressions = Object.entries(functions);

/** Zero, small and large numbers of both signs, and some in between. */
const operands = (type: Type): bigint[] =>
  [0n, 1n, 2n, 3n, -1n, -2n, 7n, 100n, top(type), top(type) - 1n, bottom(type), bottom(type) + 1n]
    .concat([0x9e3779b97f4a7c15n, 0x3c6ef372fe94f82bn, 0xdaa66d2b2b6bdf17n])
    .map((x) => wrap(type, x));

describe.each([1, 32] as const)('integers at width %i', (simdWidth) => {
  it('have every function, for all types and vectors', async () => {
    const triples = types.map((type) => {
      const x = operands(type);
      return x.flatMap((a, i) => x.map((b, j) => [a, b, defined(x[(3 * i + 5 * j) % x.length])] as const));
    });
    const count = defined(triples[0]).length;
    const input = BigUint64Array.from(triples.flat(2), (x) => BigInt.asUintN(64, x));
    const results = new BigUint64Array(types.length * count * expressions.length);
    const differing = new Uint32Array(1);
    await runTest(
      `template <typename T>
      inline void all_of(device const ulong* in, device ulong* out, device atomic_uint* differing) {
        for (uint i = 0; i < ${count}; ++i) {
          const T x0 = T(in[3 * i]), y0 = T(in[3 * i + 1]), z0 = T(in[3 * i + 2]);
          const vec<T, 3> x3 = vec<T, 3>(x0), y3 = vec<T, 3>(y0), z3 = vec<T, 3>(z0);
          uint different = 0;
          ${expressions
            .map(
              (_, k) => `{
            const auto scalar = function_${k}(x0, y0, z0);
            out[i * ${expressions.length} + ${k}] = ulong(scalar);
            different += uint(any(function_${k}(x3, y3, z3) != scalar));
          }`,
            )
            .join('\n')}
          atomic_fetch_add_explicit(differing, different, memory_order_relaxed);
        }
      }
      kernel void test(device const ulong* in [[buffer(0)]], device ulong* out [[buffer(1)]],
          device atomic_uint* differing [[buffer(2)]]) {
        ${types
          .map(
            ({ name }, t) =>
              `all_of<${name}>(in + ${3 * count * t}, out + ${count * expressions.length * t}, differing);`,
          )
          .join('\n')}
      }`.replace(
        'template <typename T>',
        `${expressions
          .map(
            ([expression], k) =>
              `template <typename V> inline auto function_${k}(V x, V y, V z) { return ${expression}; }`,
          )
          .join('\n')}\n$&`,
      ),
      [input, results, differing],
      { simdWidth },
    );
    const wrong: unknown[] = [];
    types.forEach((type, t) =>
      defined(triples[t]).forEach(([x, y, z], i) =>
        expressions.forEach(([expression, f], k) => {
          const found = wrap(type, defined(results[(t * count + i) * expressions.length + k]));
          const expected = wrap(type, f(type, x, y, z));
          if (found !== expected) wrong.push([type.name, expression, x, y, z, found, expected]);
        }),
      ),
    );
    expect(wrong.slice(0, 20)).toEqual([]);
    expect(differing[0]).toBe(0);
  });

  it('multiply 24 bits', () => expectValues(special, simdWidth));
});

const special: Case[] = [
  ['mul24(-3 * one, 5)', 'int', -15n],
  ['mul24(0x01000003u * uint(one), 5u)', 'uint', 15n],
  ['mad24(int2(-3, 4), int2(5), int2(one))', 'int2', [-14n, 21n]],
  ['mad24(0xffffffu * uint(one), 0xffffffu, 1u)', 'uint', BigInt.asUintN(32, 0xffffffn * 0xffffffn + 1n)],
  ['absdiff(-100 * one, 2147483647)', 'uint', 2147483747n],
  ['extract_bits(0x12345678u, 8, uint(one) * 8)', 'uint', 0x56n],
  ['extract_bits(-1 * one, 0, 32)', 'int', -1n],
  ['extract_bits(5 * one, 3, 0)', 'int', 0n],
  ['insert_bits(0u, ~0u, 0, 32)', 'uint', 0xffffffffn],
];
