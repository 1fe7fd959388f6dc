import { expect, it } from 'vitest';
import { failure } from '../support.js';
import { expectValues, runTest } from './support.js';

/** What does not compile in Metal, as an expression of `a` and `b`, and a similar one that does. */
const operands: [expression: string, a: string, b: string, valid: boolean][] = [
  ['a + b', 'float4()', 'int4()', false],
  ['a + b', 'float4()', '1.0f', true],
  ['a + b', 'float4()', '1', true],
  ['a + b', 'float4()', 'float3()', false],
  ['a * b', 'half4()', 'float4()', false],
  ['a * b', 'half4()', '2.0f', true],
  ['a + b', 'half()', 'bfloat()', false],
  ['a + b', 'bfloat()', '1.0f', true],
  ['a = b', 'bfloat()', '1.0f', true],
  ['a = b', 'int()', 'bfloat()', false],
  ['a = b', 'bfloat()', '1', true],
  ['a = b', 'half()', 'bfloat()', false],
  ['a = b', 'float()', 'bfloat()', true],
  ['a = b', 'float4()', 'int4()', false],
  ['a = b', 'float4()', 'float3()', false],
  ['a = b', 'float4()', '1', true],
  ['a = b', 'float3()', 'packed_float3()', true],
  ['a = b', 'int3()', 'packed_float3()', false],
  ['float4(a, b)', 'float2()', '1.0f', false],
  ['float4(a, b)', 'float3()', '1.0f', true],
  ['float4(a, b)', 'float3()', 'float3()', false],
  ['float4(a, b)', 'half2()', 'half2()', false],
  ['float3(a, b)', '1.0f', '2.0f', false],
  ['float3(a, b)', '1.0f', 'float2()', true],
  ['int3(a) + b', 'float3()', 'int3()', true],
  ['min(a, b)', '1', '1.0f', false],
  ['min(a, b)', '1', '1u', false],
  ['min(a, b)', 'float2()', '1', true],
  ['fmin(a, b)', '1.0f', '1.0h', false],
  ['sqrt(a + b)', '1', '1', false],
  ['sqrt(a + b)', '1', '1.0f', true],
  ['dot(a, b)', 'float3()', 'float2()', false],
  ['cross(a, b)', 'float4()', 'float4()', false],
  ['a * b', 'float2x3()', 'float3()', false],
  ['a * b', 'float2x3()', 'float2()', true],
  ['a * b', 'float2x2()', 'half2x2()', false],
  ['addsat(a, b)', '1.0f', '1.0f', false],
  ['popcount(a), b', '1.0f', '1', false],
  ['isnan(a), b', '1', '1', false],
  ['select(a, b, bool2())', 'float2()', 'float2()', true],
  ['select(a, b, int2())', 'float2()', 'float2()', false],
  ['all(a), b', 'float2()', '1', false],
  ['a = b', 'atomic_int()', '1', false],
  ['a + b', 'atomic_int()', '1', false],
  ['atomic_fetch_add_explicit(&a, b, memory_order_relaxed)', 'atomic_int()', '1', true],
  ['atomic_fetch_add_explicit(&a, b, memory_order_relaxed)', 'int()', '1', false],
];

it('refuses operands that Metal refuses', async () => {
  // Whether an expression compiles decides between two functions.
  const probes = operands
    .map(
      ([expression], i) => `
      template <typename A, typename B> auto probe_${i}(A&& a, B&& b, int) -> decltype((void)(${expression}), true) {
        return true;
      }
      template <typename A, typename B> bool probe_${i}(A&&, B&&, long) { return false; }
      template <typename T> T& lvalue_${i}(T&& value) { return value; }`,
    )
    .join('');
  await expectValues(
    operands.map(([expression, a, b, valid], i) => [
      `probe_${i}(lvalue_${i}(${a}), ${b}, 0) ? 1 : 0 /* ${expression} of ${a} and ${b} */`,
      'int',
      BigInt(valid),
    ]),
    1,
    probes,
  );
});

/** What is refused in the body of a function of the library, with a sentence. */
const sentences: [statement: string, sentence: string][] = [
  ['float4() & float4();', 'Metal has no operator & for vectors of this type'],
  ['bfloat2() % bfloat2();', 'Metal has no operator % for vectors of this type'],
  ['bool2() + bool2();', 'Metal has no operator + for vectors of this type'],
  ['float2().xyz;', 'the vector has no such component'],
  ['float4 v; v.xx = float2(1);', 'a swizzle that names a component twice cannot be assigned to'],
  ['as_type<float>(half2()), as_type<int>(half());', 'as_type: the two types must have the same size'],
  ['atomic_float f; atomic_fetch_max_explicit(&f, 1.0f, memory_order_relaxed);', 'atomic_fetch_max_explicit'],
  ['atomic<short> s;', 'Metal has atomics of int, uint, ulong, long, float and bool'],
  ['simdgroup_float8x8 m; m.thread_elements();', 'thread_elements() needs simdgroups of 32'],
];

it.each(sentences)('says why in plain words: %s', async (statement, sentence) => {
  const { code, message } = await failure(() =>
    runTest(
      `kernel void test(device uint* out [[buffer(0)]]) {
        ${statement}
      }`,
      [new Uint32Array(1)],
      { simdWidth: 1 },
    ),
  );
  expect(code).toBe('UPGC_COMPILE');
  expect(message).toContain(sentence);
  expect(message).toContain('kernels.metal:4:');
});
