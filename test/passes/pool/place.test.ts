import { describe, expect, it } from 'vitest';
import { placeBuffers } from '../../../src/passes/pool/place.js';
import {
  buffersOf,
  fewestBytes,
  miniMalloc,
  mostAlive,
  numbers,
  placementFaults,
  randomBuffers,
  type Buffer,
} from '../../support/placement.js';

const noSearch = { steps: 0 };

/** With seconds of processor time, which other processes do not lengthen as they do the wall's. */
function timed<R>(work: () => R): { readonly result: R; readonly seconds: number } {
  const before = process.cpuUsage();
  const result = work();
  return { result, seconds: process.cpuUsage(before).user / 1e6 };
}

describe('placeBuffers', () => {
  it('gives simultaneous buffers bytes of their own', () => {
    const plan = placeBuffers(buffersOf([[64, 0, 1], [128, 1, 2], [64, 1, 1]])); // prettier-ignore
    expect(plan).toMatchObject({ bytes: 256, lowerBound: 256, optimal: true });
  });

  it('reuses bytes from the epoch after the last use on', () => {
    expect(placeBuffers(buffersOf([[64, 0, 1], [64, 1, 2]])).bytes, 'one epoch in common').toBe(128); // prettier-ignore
    expect(placeBuffers(buffersOf([[64, 0, 1], [64, 2, 3]])).bytes, 'none in common').toBe(64); // prettier-ignore
  });

  it('plans nothing for nothing', () => {
    expect(placeBuffers([])).toEqual({ buffers: [], bytes: 0, lowerBound: 0, optimal: true });
    expect(placeBuffers(buffersOf([[0, 0, 1]]))).toMatchObject({ bytes: 0, optimal: true });
  });

  it('takes the same buffer twice as two', () => {
    const [buffer] = buffersOf([[64, 0, 1]]);
    expect(placeBuffers(buffer ? [buffer, buffer] : [])).toMatchObject({ bytes: 128 });
  });

  it('keeps what else a buffer carries, and the order given', () => {
    const named = buffersOf([[64, 3, 4], [128, 0, 3]]).map((buffer, i) => ({ ...buffer, name: `b${i}` })); // prettier-ignore
    expect(placeBuffers(named).buffers.map(({ name, bytes }) => [name, bytes])).toEqual([
      ['b0', 64],
      ['b1', 128],
    ]);
  });

  it('is sound on random schedules, and never worse for searching (seed 42)', () => {
    const next = numbers(42);
    let improved = 0;
    for (let round = 0; round < 300; round++) {
      const shape = { count: 1 + next(40), epochs: 20, longest: 1 + next(12), unit: 64, most: 20 };
      const buffers = randomBuffers(next, shape);
      const quick = placeBuffers(buffers, noSearch);
      const plan = placeBuffers(buffers, { steps: 1e5 });
      for (const { bytes, lowerBound, optimal, ...rest } of [quick, plan]) {
        expect(placementFaults({ ...rest, bytes }, buffers, 64)).toEqual([]);
        expect(lowerBound).toBe(mostAlive(buffers));
        expect(bytes).toBeGreaterThanOrEqual(lowerBound);
        if (bytes === lowerBound) expect(optimal).toBe(true);
      }
      expect(plan.bytes).toBeLessThanOrEqual(quick.bytes);
      if (quick.optimal) expect(plan.bytes).toBe(quick.bytes);
      if (plan.bytes < quick.bytes) improved++;
    }
    expect(improved).toBeGreaterThan(10);
  });

  it('depends on nothing but the buffers', () => {
    const buffers = miniMalloc('C');
    const options = { capacity: 2 ** 20, steps: 1e7 };
    expect(placeBuffers(buffers, options)).toEqual(placeBuffers(buffers, options));
  });

  it('wins where every order of placing fails', () => {
    const buffers = buffersOf([[128, 1, 3], [64, 2, 5], [320, 2, 2], [128, 3, 4], [320, 4, 5]]); // prettier-ignore
    expect(placeBuffers(buffers, noSearch)).toMatchObject({ bytes: 640, optimal: false });
    expect(placeBuffers(buffers)).toMatchObject({ bytes: 512, lowerBound: 512, optimal: true });
  });
});

/** Eight buffers that need a byte more than are ever alive. */
const above: readonly (readonly [number, number, number])[] = [
  [2, 0, 2], [2, 1, 1], [2, 1, 4], [1, 2, 6], [1, 2, 3], [1, 3, 7], [2, 4, 4], [3, 5, 6],
]; // prettier-ignore

describe('the certificate', () => {
  /** The buffers with one number changed, to look at many problems near a hard one. */
  function changed(next: (limit: number) => number): Buffer[] {
    const victim = next(above.length);
    const buffers = buffersOf(above);
    return buffers.map((buffer, i) => {
      if (i !== victim) return buffer;
      const firstEpoch = next(7);
      return { bytes: 1 + next(3), firstEpoch, lastEpoch: firstEpoch + next(4) };
    });
  }

  it('proves what is above the bound', () => {
    expect(fewestBytes(buffersOf(above))).toBe(7);
    expect(placeBuffers(buffersOf(above))).toMatchObject({ bytes: 7, lowerBound: 6, optimal: true });
    expect(placeBuffers(buffersOf(above), noSearch)).toMatchObject({ bytes: 7, optimal: false });
  });

  it('agrees with trying every offset (seed 9)', () => {
    const next = numbers(9);
    let gaps = 0;
    for (let round = 0; round < 2000; round++) {
      const shape = { count: 1 + next(7), epochs: 6, longest: 4, unit: 1, most: 4 };
      const buffers = round % 2 === 0 ? changed(next) : randomBuffers(next, shape);
      const fewest = fewestBytes(buffers);
      expect(placeBuffers(buffers)).toMatchObject({ bytes: fewest, optimal: true });
      if (fewest > mostAlive(buffers)) gaps++;
    }
    expect(gaps, 'problems where the bound is not met').toBeGreaterThan(5);
  });

  it('is never given wrongly, however little is searched (seed 10)', () => {
    const next = numbers(10);
    const claims = { proven: 0, open: 0 };
    for (let round = 0; round < 300; round++) {
      const buffers = changed(next);
      const { bytes, optimal } = placeBuffers(buffers, { steps: next(2000) });
      if (optimal) expect(bytes).toBe(fewestBytes(buffers));
      claims[optimal ? 'proven' : 'open']++;
    }
    expect(claims.proven).toBeGreaterThan(50);
    expect(claims.open).toBeGreaterThan(0);
  });
});

describe('compile time', () => {
  it('stays within the steps it is given', () => {
    const buffers = miniMalloc('J');
    const { result, seconds } = timed(() => placeBuffers(buffers, { steps: 1e6 }));
    expect(result.optimal).toBe(false);
    expect(placementFaults(result, buffers, 1)).toEqual([]);
    // A step is a few dozen nanoseconds.
    expect(seconds).toBeLessThan(2);
  });

  it('is nearly linear for short lives', () => {
    const next = numbers(5);
    const buffers = randomBuffers(next, { count: 20_000, epochs: 6666, longest: 10, unit: 64, most: 50 });
    const { result, seconds } = timed(() => placeBuffers(buffers));
    expect(result.optimal).toBe(true);
    expect(seconds).toBeLessThan(1);
  });

  it('goes as deep as the longest part it searches', () => {
    const next = numbers(6);
    const buffers = randomBuffers(next, { count: 1500, epochs: 500, longest: 30, unit: 64, most: 50 });
    expect(placementFaults(placeBuffers(buffers, { steps: 1e7 }), buffers, 64)).toEqual([]);
  });
});

describe('the MiniMalloc problems', () => {
  it.each(['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K'])('%s fits 1 MiB', (name) => {
    const buffers = miniMalloc(name);
    const plan = placeBuffers(buffers, { capacity: 2 ** 20, steps: 1e9 });
    expect(placementFaults(plan, buffers, 1)).toEqual([]);
    expect(plan.bytes).toBeLessThanOrEqual(2 ** 20);
    expect(plan.optimal).toBe(plan.lowerBound === 2 ** 20);
  });

  it('C needs exactly its lower bound', () => {
    const plan = placeBuffers(miniMalloc('C'));
    expect(placementFaults(plan, miniMalloc('C'), 1)).toEqual([]);
    expect(plan).toMatchObject({ bytes: 1_039_360, lowerBound: 1_039_360, optimal: true });
  });
});
