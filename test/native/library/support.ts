import path from 'node:path';
import { expect } from 'vitest';
import { addon, buffers, emptySpec, temporaryFolder } from '../support.js';

const folder = temporaryFolder();

/** Runs `kernel void test` once with these buffers, which hold its results afterwards. */
export async function runTest(
  source: string,
  data: readonly (Uint32Array | Float32Array | BigUint64Array)[],
  options: { simdWidth: 1 | 32; threads?: number; grid?: number; positions?: readonly string[] },
): Promise<void> {
  const bytes = data.map((array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  const program = await addon.createProgram(
    'cpu',
    emptySpec(path.join(folder, 'cache'), {
      source: `#include <metal_stdlib>\nusing namespace metal;\n${source}`,
      simdWidth: options.simdWidth,
      kernels: [
        {
          name: 'test',
          threads: [options.threads ?? 1, 1, 1],
          arguments: [
            ...buffers(data.length),
            ...(options.positions ?? []).map((kind) => ({ kind, index: 0, bytes: 0 })),
          ],
        },
      ],
      arenas: bytes.map((array, i) => ({ name: `buffer${i}`, bytes: array.byteLength })),
      entries: [
        {
          name: 'run',
          dispatches: [
            {
              kernel: 0,
              grid: [options.grid ?? 1, 1, 1],
              bindings: bytes.map((array, arena) => ({ arena, offset: 0, bytes: array.byteLength })),
              barrier: true,
            },
          ],
        },
      ],
    }),
  );
  try {
    bytes.forEach((array, arena) => program.write(arena, 0, array));
    await program.submit(0);
    bytes.forEach((array, arena) => program.read(arena, 0, array));
  } finally {
    program.close();
  }
}

/** An integer or bool is a bigint, a floating-point number a number; a vector or matrix an array of its components. */
export type Value = number | bigint | readonly (number | bigint)[];

/** Expression, its Metal type, its value, and statements that go before it. */
export type Case = readonly [expression: string, type: string, value: Value, before?: string];

const maxComponents = 16;

// Each component takes two words: an integer sign-extended to 64 bits; a float's bits, and a mark no integer here has.
const mark = 0xf10a7;
const put = `
  template <typename T> inline void put_one(device uint* out, T value) {
    if (is_floating_point_v<T>) out[0] = as_type<uint>(float(value)), out[1] = ${mark};
    else out[0] = uint(long(value)), out[1] = uint(ulong(long(value)) >> 32);
  }
  template <typename T> inline void put(device uint* out, T value) { put_one(out, value); }
  template <typename T, int N> inline void put(device uint* out, vec<T, N> value) {
    for (int i = 0; i < N; i++) put_one(out + 2 * i, T(value[i]));
  }
  template <typename T, int N> inline void put(device uint* out, packed_vec<T, N> value) { put(out, vec<T, N>(value)); }
  template <typename T, int C, int R> inline void put(device uint* out, matrix<T, C, R> value) {
    for (int c = 0; c < C; c++) put(out + 2 * R * c, value[c]);
  }`;

function decoded(words: Uint32Array): number | bigint {
  const [low = 0, high = 0] = words;
  if (high === mark) return new Float32Array(Uint32Array.of(low).buffer)[0] ?? NaN;
  return BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low));
}

/** Evaluates every expression on the device, in one kernel, and compares types and values. */
export async function expectValues(
  cases: readonly Case[],
  simdWidth: 1 | 32,
  declarations = '',
): Promise<void> {
  const out = new Uint32Array(cases.length * 2 * maxComponents);
  // Operands come through `one`, which the compiler does not know to be 1.
  const source = `${put}
    ${declarations}
    ${cases
      .map(
        ([expression, type, , before = ''], i) => `
    inline void case_${i}(device uint* out, device const uint* ones) {
      const int one = ones[0]; (void)one;
      ${before}
      static_assert(is_same_v<remove_cvref_t<decltype(${expression})>, ${type}>, "type of a case");
      put(out, ${expression});
    }`,
      )
      .join('')}
    kernel void test(device uint* out [[buffer(0)]], device const uint* ones [[buffer(1)]]) {
      ${cases.map((_, i) => `case_${i}(out + ${i * 2 * maxComponents}, ones);`).join('\n')}
    }`;
  await runTest(source, [out, Uint32Array.of(1)], { simdWidth });
  const found = cases.map(([expression, type, value], i) => {
    const count = Array.isArray(value) ? value.length : 1;
    const start = i * 2 * maxComponents;
    const components = Array.from({ length: count }, (_, k) =>
      decoded(out.subarray(start + 2 * k, start + 2 * k + 2)),
    );
    return [expression, type, Array.isArray(value) ? components : components[0]];
  });
  expect(found).toEqual(cases.map(([expression, type, value]) => [expression, type, value]));
}

/** The nearest number with `mantissa` explicit bits, ties to even; for normal numbers. */
export function rounded(x: number, mantissa: number): number {
  if (x === 0 || !Number.isFinite(x)) return x;
  const unit = 2 ** (Math.floor(Math.log2(Math.abs(x))) - mantissa);
  const scaled = x / unit;
  const floor = Math.floor(scaled);
  const rest = scaled - floor;
  return unit * (rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor);
}

export const half = (x: number): number => rounded(x, 10);
export const bfloat = (x: number): number => rounded(x, 7);
