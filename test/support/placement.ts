import { readFileSync } from 'node:fs';

/** What placements are checked with; it shares nothing with the planner. */

export interface Buffer {
  readonly bytes: number;
  readonly firstEpoch: number;
  readonly lastEpoch: number;
}

export interface PlacedBuffer extends Buffer {
  readonly offset: number;
}

const meet = (a: Buffer, b: Buffer): boolean => a.firstEpoch <= b.lastEpoch && b.firstEpoch <= a.lastEpoch;

/** What is wrong with a placement, in words; empty when nothing is. */
export function placementFaults(
  { buffers, bytes }: { readonly buffers: readonly PlacedBuffer[]; readonly bytes: number },
  asked: readonly Buffer[],
  alignment: number,
): string[] {
  const faults: string[] = [];
  const shown = ({ offset, bytes: size, firstEpoch, lastEpoch }: PlacedBuffer): string =>
    `[${offset}, ${offset + size}) in epochs ${firstEpoch} to ${lastEpoch}`;
  if (buffers.length !== asked.length) faults.push(`${buffers.length} buffers for ${asked.length}`);
  for (const [i, buffer] of buffers.entries()) {
    const wanted = asked[i];
    if (
      buffer.bytes !== wanted?.bytes ||
      buffer.firstEpoch !== wanted.firstEpoch ||
      buffer.lastEpoch !== wanted.lastEpoch
    )
      faults.push(`buffer ${i} is another`);
    if (!(buffer.offset >= 0) || buffer.offset % alignment !== 0)
      faults.push(`${shown(buffer)} is misaligned`);
    for (const other of buffers.slice(0, i)) {
      const apart =
        buffer.offset + buffer.bytes <= other.offset || other.offset + other.bytes <= buffer.offset;
      if (meet(buffer, other) && !apart) faults.push(`${shown(buffer)} overlaps ${shown(other)}`);
    }
  }
  const end = Math.max(0, ...buffers.map((buffer) => buffer.offset + buffer.bytes));
  if (bytes !== end) faults.push(`${bytes} bytes, but the last buffer ends at ${end}`);
  return faults;
}

/** The most bytes alive at once, epoch by epoch. */
export function mostAlive(buffers: readonly Buffer[]): number {
  const alive = (epoch: number): number =>
    buffers
      .filter(({ firstEpoch, lastEpoch }) => firstEpoch <= epoch && epoch <= lastEpoch)
      .reduce((sum, { bytes }) => sum + bytes, 0);
  return Math.max(0, ...buffers.map(({ firstEpoch }) => alive(firstEpoch)));
}

/** The fewest bytes that hold the buffers: every offset of every buffer is tried. For a handful of small buffers. */
export function fewestBytes(buffers: readonly Buffer[]): number {
  let capacity = mostAlive(buffers);
  while (!fits(buffers, capacity, [])) capacity++;
  return capacity;
}

function fits(buffers: readonly Buffer[], capacity: number, placed: readonly PlacedBuffer[]): boolean {
  const [buffer, ...rest] = buffers;
  if (!buffer) return true;
  const rivals = placed.filter((other) => meet(buffer, other));
  for (let offset = 0; offset + buffer.bytes <= capacity; offset++) {
    const free = rivals.every(
      (other) => offset + buffer.bytes <= other.offset || other.offset + other.bytes <= offset,
    );
    if (free && fits(rest, capacity, [...placed, { ...buffer, offset }])) return true;
  }
  return false;
}

/** `[bytes, firstEpoch, lastEpoch]` each. */
export const buffersOf = (rows: readonly (readonly [number, number, number])[]): Buffer[] =>
  rows.map(([bytes, firstEpoch, lastEpoch]) => ({ bytes, firstEpoch, lastEpoch }));

/** A generator of whole numbers below `limit`, the same in every run (Lehmer). */
export function numbers(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state * 48271) % 2147483647;
    return state % limit;
  };
}

/** `count` buffers that live `longest` epochs at most, in multiples of `unit` bytes. */
export function randomBuffers(
  next: (limit: number) => number,
  shape: { count: number; epochs: number; longest: number; unit: number; most: number },
): Buffer[] {
  return Array.from({ length: shape.count }, () => {
    const firstEpoch = next(shape.epochs);
    return {
      bytes: shape.unit * (1 + next(shape.most)),
      firstEpoch,
      lastEpoch: firstEpoch + next(shape.longest),
    };
  });
}

/** One of the MiniMalloc problems, A to K. */
export function miniMalloc(name: string): Buffer[] {
  const [, ...rows] = readFileSync(`bench/data/minimalloc/${name}.1048576.csv`, 'utf8').trim().split('\n');
  return rows.map((row) => {
    const [, lower = 0, upper = 0, bytes = 0] = row.split(',').map(Number);
    return { bytes, firstEpoch: lower, lastEpoch: upper - 1 };
  });
}
