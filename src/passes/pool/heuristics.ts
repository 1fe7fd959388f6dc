import type { Order } from './orders.js';
import { inTurn } from './orders.js';
import type { Block, Problem } from './problem.js';

/** Offsets of all blocks, by index, and the highest end; in units. */
export interface Placement {
  readonly offsets: readonly number[];
  readonly height: number;
}

/** Of the gaps that a block fits into, the lowest or the smallest. */
export type Fit = 'first' | 'best';

/** A placed block as an obstacle: what it holds, and until which section. */
interface Held {
  readonly offset: number;
  readonly end: number;
  readonly last: number;
}

/** As an allocator at run time would: blocks in order of execution, each at its birth, into what is free then. */
export function placeAsTheyLive({ blocks }: Problem, fit: Fit): Placement {
  let held: Held[] = [];
  const offsets = blocks.map(({ size, first, last }) => {
    held = held.filter((other) => other.last >= first);
    const offset = gapFor(size, held, fit);
    const above = held.findIndex((other) => other.offset > offset);
    held.splice(above < 0 ? held.length : above, 0, { offset, end: offset + size, last });
    return offset;
  });
  return withHeight(blocks, offsets);
}

/** Blocks in the given order, each into a gap between those of its neighbours that have been placed. */
export function placeInOrder(
  { blocks }: Problem,
  neighbours: readonly (readonly Block[])[],
  order: Order,
  fit: Fit,
): Placement {
  const placed: (Held | undefined)[] = blocks.map(() => undefined);
  for (const { index, size, last } of [...blocks].sort(inTurn(order))) {
    const held: Held[] = [];
    for (const neighbour of neighbours[index] ?? []) {
      const other = placed[neighbour.index];
      if (other) held.push(other);
    }
    held.sort((a, b) => a.offset - b.offset);
    const offset = gapFor(size, held, fit);
    placed[index] = { offset, end: offset + size, last };
  }
  return withHeight(
    blocks,
    placed.map((held) => held?.offset ?? 0),
  );
}

/** `held` is in order of offset, and may overlap. */
function gapFor(size: number, held: readonly Held[], fit: Fit): number {
  let best: { readonly offset: number; readonly room: number } | undefined;
  let free = 0;
  for (const { offset, end } of held) {
    const room = offset - free;
    if (room >= size && (!best || room < best.room)) {
      if (fit === 'first') return free;
      best = { offset: free, room };
    }
    free = Math.max(free, end);
  }
  return best?.offset ?? free;
}

function withHeight(blocks: readonly Block[], offsets: readonly number[]): Placement {
  const height = blocks.reduce((most, { index, size }) => Math.max(most, (offsets[index] ?? 0) + size), 0);
  return { offsets, height };
}
