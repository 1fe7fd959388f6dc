import type { Block, Problem } from './problem.js';

/** Compares blocks: negative when `a` goes first. */
export type Order = (a: Block, b: Block) => number;

/** Orders by which both the heuristics and the exact search take blocks, ties in order of execution. */
export interface Orders {
  readonly size: Order;
  /** Size × sections. */
  readonly area: Order;
  /** The longest alive first. */
  readonly width: Order;
  /** Those of the fullest section first. */
  readonly contention: Order;
}

export function ordersOf({ blocks, sections }: Problem): Orders {
  const fill = sectionTotals(blocks, sections);
  const contention = blocks.map(({ first, last }) =>
    fill.slice(first, last + 1).reduce((most, total) => Math.max(most, total), 0),
  );
  return {
    size: descending(({ size }) => size),
    area: descending((block) => block.size * width(block)),
    width: descending(width),
    contention: descending(({ index }) => contention[index] ?? 0),
  };
}

/** Each order breaks the ties of those before it. */
export function inTurn(...orders: readonly Order[]): Order {
  return (a, b) => {
    for (const order of orders) {
      const difference = order(a, b);
      if (difference !== 0) return difference;
    }
    return a.index - b.index;
  };
}

const width = ({ first, last }: Block): number => last - first + 1;

function descending(measure: (block: Block) => number): Order {
  return (a, b) => measure(b) - measure(a);
}

/** Units alive in each section. */
function sectionTotals(blocks: readonly Block[], sections: number): number[] {
  const change = new Array<number>(sections + 1).fill(0);
  for (const { size, first, last } of blocks) {
    change[first] = (change[first] ?? 0) + size;
    change[last + 1] = (change[last + 1] ?? 0) - size;
  }
  let live = 0;
  return change.slice(0, sections).map((difference) => (live += difference));
}
