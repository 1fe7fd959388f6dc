import path from 'node:path';
import { expect } from 'vitest';
import { MetalOnCpu, type LibraryOptions, type Launch } from 'upgc/metal-cpu';
import { gamma } from '../support/rounding.js';

export const kernelFile = (name: string): string =>
  path.join(import.meta.dirname, 'kernels', `${name}.metal`);

export const open = (name: string, options: Omit<LibraryOptions, 'name'> = {}): Promise<MetalOnCpu> =>
  MetalOnCpu.open(kernelFile(name), options);

/** Numbers from 0 to 1, the same on every run. */
export function uniform(count: number, seed = 1): Float64Array {
  let state = seed;
  return Float64Array.from({ length: count }, () => {
    // Park and Miller's minimal standard generator.
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  });
}

/** f32 numbers from -2 to 2. */
export const floats = (count: number, seed = 1): Float32Array =>
  Float32Array.from(uniform(count, seed), (x) => 4 * x - 2);

/** Whole numbers from `least` up to, not including, `end`. */
export const integers = (count: number, least: number, end: number, seed = 1): number[] =>
  Array.from(uniform(count, seed), (x) => least + Math.floor(x * (end - least)));

export const at = (values: ArrayLike<number>, index: number): number => values[index] ?? Number.NaN;

type Results = Readonly<Record<string, ArrayBufferView>>;

const bits = (results: Results): Record<string, Buffer> =>
  Object.fromEntries(
    Object.entries(results).map(([name, { buffer, byteOffset, byteLength }]) => [
      name,
      Buffer.from(buffer, byteOffset, byteLength),
    ]),
  );

/**
 * Runs a kernel as Metal may: in the order of its threads, in random orders, and shared by two OS threads. All must leave
 * the same bits. `results` makes the buffers that a run writes.
 */
export async function runEveryWay<R extends Results>(
  library: MetalOnCpu,
  kernel: string,
  results: () => R,
  launch: Launch,
): Promise<R> {
  const run = async (way: Pick<Launch, 'shuffle' | 'osThreads'>): Promise<R> => {
    const found = results();
    await library.run(kernel, { ...launch, ...way, buffers: { ...launch.buffers, ...found } });
    return found;
  };
  const first = await run({});
  for (const way of [{ shuffle: 1 }, { shuffle: 20 }, { osThreads: 2 }])
    expect(bits(await run(way)), JSON.stringify(way)).toEqual(bits(first));
  return first;
}

/** Every number is as near to what it should be as its bound says; NaN never is. */
export function expectWithin(
  found: ArrayLike<number>,
  expected: ArrayLike<number>,
  bound: (index: number) => number,
): void {
  expect(found.length).toBe(expected.length);
  const wrong = Array.from(found).flatMap((value, i) =>
    Math.abs(value - at(expected, i)) <= bound(i)
      ? []
      : [`${i}: ${value}, not ${at(expected, i)} ± ${bound(i)}`],
  );
  expect(wrong).toEqual([]);
}

/** How far a sum of f32 terms in any order may be from the exact one. */
export const sumError = (terms: readonly number[]): number =>
  gamma(terms.length) * terms.reduce((sum, term) => sum + Math.abs(term), 0);

/** A float of 16 bits with `mantissa` explicit bits and the exponents from `least` (of normal numbers) on. */
interface SmallFloat {
  readonly mantissa: number;
  readonly least: number;
}
export const half: SmallFloat = { mantissa: 10, least: -14 };
export const bfloat: SmallFloat = { mantissa: 7, least: -126 };

/** The bits of the nearest number, ties to even; of finite numbers that do not overflow. */
export function bitsOf(x: number, { mantissa, least }: SmallFloat): number {
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const size = Math.abs(x);
  const exponent = Math.max(least, size === 0 ? least : Math.floor(Math.log2(size)));
  const scaled = size / 2 ** (exponent - mantissa);
  const below = Math.floor(scaled);
  const rest = scaled - below;
  const whole = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
  // A mantissa that rounds up to the next power of two carries into the exponent.
  return sign + (exponent - least) * 2 ** mantissa + whole;
}

export function valueOf(raw: number, { mantissa, least }: SmallFloat): number {
  const size = raw & 0x7fff;
  const exponent = size >> mantissa;
  const fraction = size & (2 ** mantissa - 1);
  const value =
    exponent === 0
      ? fraction * 2 ** (least - mantissa)
      : (2 ** mantissa + fraction) * 2 ** (exponent - 1 + least - mantissa);
  return (raw & 0x8000) === 0 ? value : -value;
}

/** The relative error of rounding to this type. */
export const roundoff = ({ mantissa }: SmallFloat): number => 2 ** -(mantissa + 1);
