import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { MetalOnCpu } from 'upgc/metal-cpu';

const library = MetalOnCpu.open(fileURLToPath(new URL('softmax.metal', import.meta.url)));

/** Softmax by its definition, in float64. */
function softmax(row: readonly number[]): number[] {
  const powers = row.map(Math.exp);
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

// Width and threads that divide each other, and that do not.
it.each([
  [64, 64],
  [100, 32],
  [1000, 96],
])('softmax of rows of %i, by %i threads each', async (width, threads) => {
  const rows = 3;
  const x = Float32Array.from({ length: rows * width }, (_, i) => 3 * Math.sin(i * i));
  const run = async (options: { shuffle?: number } = {}): Promise<Float32Array> => {
    const y = new Float32Array(x.length);
    const buffers = { x, y, width };
    await (await library).run('softmax_float', { grid: threads * rows, threads, buffers, ...options });
    return y;
  };
  const y = await run();

  // An f32 rounds with a relative error of 2^-24. Sums of `width` terms round that often, exponents of up to 6 in both a
  // power and its sum; exp and the quotient take a few more.
  const error = (width + 2 * 6 + 8) * 2 ** -24;
  for (let row = 0; row < rows; row++) {
    const expected = softmax([...x.subarray(row * width, (row + 1) * width)]);
    expected.forEach((value, i) => {
      expect(Math.abs((y[row * width + i] ?? NaN) - value)).toBeLessThanOrEqual(error * value);
    });
  }
  // Threads in another order leave the same bits: no barrier is missing.
  for (const shuffle of [1, 2, 3]) expect(await run({ shuffle })).toEqual(y);
});
