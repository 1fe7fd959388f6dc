/** What the planner is compared with: allocators as inference runtimes have them, written plainly. */

export interface Buffer {
  readonly bytes: number;
  readonly firstEpoch: number;
  readonly lastEpoch: number;
}

interface Placed extends Buffer {
  readonly offset: number;
}

/** Bytes of the pool. */
export type Allocator = (buffers: readonly Buffer[]) => number;

/** Every buffer has bytes of its own. */
export const noReuse: Allocator = (buffers) => buffers.reduce((sum, { bytes }) => sum + bytes, 0);

/** The largest first, each at the lowest offset that is free while it is alive. */
export const greedyBySize: Allocator = (buffers) =>
  allocate(
    [...buffers].sort((a, b) => b.bytes - a.bytes),
    (gaps) => gaps[0],
  );

/** In order of execution, each into the lowest gap that is large enough. */
export const firstFit: Allocator = (buffers) => allocate(inOrderOfExecution(buffers), (gaps) => gaps[0]);

/** In order of execution, each into the smallest gap that is large enough: a free list. */
export const bestFit: Allocator = (buffers) =>
  allocate(inOrderOfExecution(buffers), (gaps) => [...gaps].sort((a, b) => a.bytes - b.bytes)[0]);

interface Gap {
  readonly offset: number;
  /** Infinity above all others. */
  readonly bytes: number;
}

function allocate(order: readonly Buffer[], choose: (gaps: readonly Gap[]) => Gap | undefined): number {
  const placed: Placed[] = [];
  for (const buffer of order) {
    const rivals = placed
      .filter((other) => other.firstEpoch <= buffer.lastEpoch && buffer.firstEpoch <= other.lastEpoch)
      .sort((a, b) => a.offset - b.offset);
    const gaps: Gap[] = [];
    let free = 0;
    for (const { offset, bytes } of rivals) {
      if (offset > free) gaps.push({ offset: free, bytes: offset - free });
      free = Math.max(free, offset + bytes);
    }
    gaps.push({ offset: free, bytes: Infinity });
    const gap = choose(gaps.filter(({ bytes }) => bytes >= buffer.bytes));
    placed.push({ ...buffer, offset: gap?.offset ?? free });
  }
  return placed.reduce((end, { offset, bytes }) => Math.max(end, offset + bytes), 0);
}

/** Those of one epoch as they are given. */
function inOrderOfExecution(buffers: readonly Buffer[]): readonly Buffer[] {
  return [...buffers].sort((a, b) => a.firstEpoch - b.firstEpoch);
}
