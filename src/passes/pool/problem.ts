/** A buffer to place: its size in bytes and the epochs during which it holds a value, both ends included. */
export interface Lifetime {
  readonly bytes: number;
  readonly firstEpoch: number;
  readonly lastEpoch: number;
}

/** A buffer of a problem. Sizes and offsets count in units: the greatest common divisor of all sizes. */
export interface Block {
  /** Position in the problem's list. */
  readonly index: number;
  readonly size: number;
  /** The sections in which it is alive, both included. */
  readonly first: number;
  readonly last: number;
}

/**
 * A placement problem over sections instead of epochs. Each section is a greatest set of blocks that are alive at the
 * same time (a maximal clique of the interval graph): two blocks share an epoch exactly when they share a section, and
 * no epoch holds more than the section that covers it. There are at most as many sections as blocks.
 */
export interface Problem {
  /** In order of their first section. */
  readonly blocks: readonly Block[];
  readonly sections: number;
  /** Bytes of a unit. */
  readonly unit: number;
}

/**
 * The problem of placing `lifetimes`, which must be in order of `firstEpoch` and have at least one byte each; block i
 * is lifetime i.
 */
export function problemOf(lifetimes: readonly Lifetime[]): Problem {
  const unit = lifetimes.reduce((divisor, { bytes }) => greatestCommonDivisor(divisor, bytes), 0);
  const ends = [...lifetimes.keys()].sort((a, b) => lastEpoch(lifetimes[a]) - lastEpoch(lifetimes[b]));
  const first = new Map<number, number>();
  const last = new Map<number, number>();
  let section = 0;
  let ended = 0;
  for (const [index, lifetime] of lifetimes.entries()) {
    const before = ended;
    for (;;) {
      const ending = ends[ended];
      if (ending === undefined || lastEpoch(lifetimes[ending]) >= lifetime.firstEpoch) break;
      last.set(ending, section);
      ended++;
    }
    // Something has ended since the last block began: what is alive from here on is another set.
    if (ended > before) section++;
    first.set(index, section);
  }
  const blocks = lifetimes.map(({ bytes }, index) => ({
    index,
    size: bytes / unit,
    first: first.get(index) ?? 0,
    last: last.get(index) ?? section,
  }));
  return { blocks, sections: section + 1, unit };
}

const lastEpoch = (lifetime: Lifetime | undefined): number => lifetime?.lastEpoch ?? 0;

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** For each block, the blocks that share a section with it. */
export function neighboursOf(blocks: readonly Block[]): readonly (readonly Block[])[] {
  const neighbours = blocks.map((): Block[] => []);
  for (const [index, block] of blocks.entries()) {
    for (let later = index + 1; later < blocks.length; later++) {
      const other = blocks[later];
      if (!other || other.first > block.last) break;
      neighbours[index]?.push(other);
      neighbours[later]?.push(block);
    }
  }
  return neighbours;
}
