import type { Placement } from './heuristics.js';
import type { Order } from './orders.js';
import type { Block, Problem } from './problem.js';

/**
 * Exact search for a placement below a given height, after the ideas of MiniMalloc (Moffitt, ASPLOS 2023): canonical
 * placements, lower bounds by section, decomposition into parts that share no section, several static orders in turn.
 *
 * Every feasible placement can be pushed down until each block lies at 0 or on the end of a neighbour (a block that
 * shares a section with it), so the search looks at such placements only. Each block has a `lowest`: no placement
 * below this point of the search has it lower. A block that no unplaced neighbour can get under is decided:
 *   - it lies at its `lowest`, which is then the end of a placed neighbour, or 0, and its neighbours lie above it; or
 *   - it does not, and so rests on a neighbour that is yet to be placed: its `lowest` rises to the lowest such end.
 * The two exclude each other, so no placement is met twice, and the blocks may be decided in any order.
 */

/** A block during the search. Offsets and heights are in units. */
class Item {
  readonly neighbours: Item[] = [];
  readonly sections: Section[] = [];
  /** Position in the static order that breaks ties. */
  rank = 0;
  lowest = 0;
  /** The highest end of its placed neighbours; `lowest` is above it once "it lies there" has been refuted. */
  floor = 0;
  placed = false;
  queued = false;
  /** Its end when it was queued. */
  queuedEnd = 0;
  /** The unplaced items before and after it, in order of first section. */
  previous: Item | undefined;
  next: Item | undefined;

  constructor(readonly block: Block) {}
}

class Section {
  /** The items alive in it, in order of `lowest` when last measured. */
  readonly live: Item[] = [];
  /** No placement below this point of the search ends lower here. */
  bound = 0;
  /** How many of its unplaced items could be the lowest of them without exceeding the capacity. */
  choices = 0;
  /** The first unplaced item in order of `lowest`. */
  front: Item | undefined;
  /** Dead ends met here, plus 1. */
  weight = 1;
  dirty = false;
}

/** How to choose the next block to decide. */
export interface Strategy {
  /** Compares blocks; the smaller goes first among equals. */
  readonly order: Order;
  /**
   * What to decide next: the lowest block of all, or the lowest of the section that has the fewest choices and has met
   * the most dead ends (what constraint programming calls dom/wdeg).
   */
  readonly where: 'lowest' | 'tightest';
}

export type Outcome =
  | { readonly kind: 'found'; readonly placement: Placement }
  /** No placement is lower than `bound`, which is above the capacity asked for. */
  | { readonly kind: 'none'; readonly bound: number }
  /** A limit was reached. */
  | { readonly kind: 'unknown' };

/** When an attempt gives up. */
export interface Limits {
  readonly deadEnds: number;
  readonly steps: number;
}

/** Searches one problem, again and again: what it learns about sections makes later attempts faster. */
export class Search {
  /** Touches of a block or section so far, a measure of time that is the same on every machine. */
  steps = 0;
  private stepLimit = 0;
  private deadEnds = 0;
  private capacity = 0;
  private strategy: Strategy['where'] = 'lowest';
  /** The lowest height that a dead end asked for. */
  private needed = Infinity;
  private readonly items: readonly Item[];
  private readonly sections: readonly Section[];
  /** What to restore on the way back: an item and its `lowest` and `floor` before. */
  private readonly changed: Item[] = [];
  private readonly changedLowest: number[] = [];
  private readonly changedFloor: number[] = [];
  private readonly placed: Item[] = [];
  private readonly queue: Item[] = [];
  private readonly dirty: Section[] = [];

  constructor({ blocks, sections }: Problem, neighbours: readonly (readonly Block[])[]) {
    this.items = blocks.map((block) => new Item(block));
    this.sections = Array.from({ length: sections }, () => new Section());
    for (const item of this.items) {
      const { index, first, last } = item.block;
      for (const block of neighbours[index] ?? []) {
        const neighbour = this.items[block.index];
        if (neighbour) item.neighbours.push(neighbour);
      }
      item.sections.push(...this.sections.slice(first, last + 1));
      for (const section of item.sections) section.live.push(item);
    }
  }

  /** Looks for a placement of at most `capacity` units. */
  attempt(capacity: number, { order, where }: Strategy, limits: Limits): Outcome {
    this.capacity = capacity;
    this.strategy = where;
    this.stepLimit = this.steps + limits.steps;
    this.deadEnds = limits.deadEnds;
    this.needed = Infinity;
    const ranked = this.items.map(({ block }) => block).sort(order);
    const ranks = new Map(ranked.map((block, rank) => [block.index, rank]));
    for (const [index, item] of this.items.entries()) {
      item.rank = ranks.get(index) ?? 0;
      [item.lowest, item.floor, item.placed] = [0, 0, false];
      [item.previous, item.next] = [this.items[index - 1], this.items[index + 1]];
      this.touch(item);
    }
    this.placed.length = 0;
    this.changed.length = this.changedLowest.length = this.changedFloor.length = 0;
    const found = this.propagate() && this.solveParts(this.items[0], undefined);
    if (found) {
      const height = this.items.reduce((most, { lowest, block }) => Math.max(most, lowest + block.size), 0);
      return { kind: 'found', placement: { offsets: this.items.map(({ lowest }) => lowest), height } };
    }
    return this.exhausted() ? { kind: 'unknown' } : { kind: 'none', bound: this.needed };
  }

  private exhausted(): boolean {
    return this.deadEnds <= 0 || this.steps > this.stepLimit;
  }

  /** Places the unplaced items from `from` up to `to`, in parts that share no section: one fails, all fail. */
  private solveParts(from: Item | undefined, to: Item | undefined): boolean {
    let item = from;
    while (item && item !== to) {
      const first = item;
      let last = item.block.last;
      let length = 0;
      while (item && item !== to && item.block.first <= last) {
        last = Math.max(last, item.block.last);
        item = item.next;
        length++;
      }
      this.steps += length;
      if (!this.solve(first, item, last)) return false;
    }
    return true;
  }

  /** Places the unplaced items from `from` up to `to`, which reach to section `last`. On failure nothing has changed. */
  private solve(from: Item, to: Item | undefined, last: number): boolean {
    const changedBefore = this.changed.length;
    for (;;) {
      if (this.exhausted()) return this.undo(changedBefore);
      const item = this.choose(from, to, last);
      const changed = this.changed.length;
      const placed = this.placed.length;
      if (this.place(item) && this.propagate() && this.solveParts(item === from ? item.next : from, to))
        return true;
      while (this.placed.length > placed) this.unplace(this.placed.pop());
      this.undo(changed);
      if (this.exhausted()) return this.undo(changedBefore);
      if (!this.raise(item, this.lowestSupport(item)) || !this.propagate()) return this.undo(changedBefore);
    }
  }

  /** The item to decide: one whose neighbours all end above its `lowest`, so that none fits under it. */
  private choose(from: Item, to: Item | undefined, last: number): Item {
    let item =
      this.strategy === 'lowest' ? this.lowestOf(from, to) : this.tightest(from.block.first, last, from);
    for (;;) {
      let under: Item | undefined;
      for (const other of item.neighbours) {
        if (other.placed || other.lowest + other.block.size > item.lowest) continue;
        if (!under || precedes(other, under)) under = other;
      }
      this.steps += item.neighbours.length;
      if (!under) return item;
      item = under;
    }
  }

  private lowestOf(from: Item, to: Item | undefined): Item {
    let best = from;
    for (let item = from.next; item && item !== to; item = item.next) {
      if (precedes(item, best)) best = item;
      this.steps++;
    }
    return best;
  }

  private tightest(first: number, last: number, otherwise: Item): Item {
    let best = otherwise;
    let least = Infinity;
    for (let index = first; index <= last; index++) {
      const section = this.sections[index];
      if (!section?.front) continue;
      const measure = (section.choices + 1 - section.bound / this.capacity) / section.weight;
      if (measure >= least) continue;
      least = measure;
      best = section.front;
    }
    this.steps += last - first;
    return best;
  }

  /** Fixes an item at its `lowest`, and its neighbours above it. */
  private place(item: Item): boolean {
    const end = item.lowest + item.block.size;
    this.enqueue(item);
    item.placed = true;
    this.placed.push(item);
    if (item.previous) item.previous.next = item.next;
    if (item.next) item.next.previous = item.previous;
    this.touch(item);
    this.steps += item.neighbours.length;
    for (const other of item.neighbours) {
      if (other.placed || other.floor >= end) continue;
      if (other.lowest < end) {
        if (!this.raise(other, end)) return false;
      } else this.save(other);
      other.floor = end;
    }
    return true;
  }

  private unplace(item: Item | undefined): void {
    if (!item) return;
    item.placed = false;
    if (item.previous) item.previous.next = item;
    if (item.next) item.next.previous = item;
    this.touch(item);
  }

  /** The lowest end of an unplaced neighbour: what an item that does not lie at its floor has to rest on. */
  private lowestSupport(item: Item): number {
    let lowest = Infinity;
    for (const other of item.neighbours) {
      if (!other.placed) lowest = Math.min(lowest, other.lowest + other.block.size);
    }
    this.steps += item.neighbours.length;
    return lowest;
  }

  private raise(item: Item, lowest: number): boolean {
    if (lowest + item.block.size > this.capacity) return this.fail(lowest + item.block.size);
    this.save(item);
    this.enqueue(item);
    item.lowest = lowest;
    this.touch(item);
    return true;
  }

  private save(item: Item): void {
    this.changed.push(item);
    this.changedLowest.push(item.lowest);
    this.changedFloor.push(item.floor);
  }

  /** Restores everything changed since `length` changes; false, for callers that fail. */
  private undo(length: number): false {
    while (this.changed.length > length) {
      const item = this.changed.pop();
      const lowest = this.changedLowest.pop();
      const floor = this.changedFloor.pop();
      if (!item || lowest === undefined || floor === undefined) break;
      item.lowest = lowest;
      item.floor = floor;
      this.touch(item);
    }
    return false;
  }

  private enqueue(item: Item): void {
    if (item.queued) return;
    item.queued = true;
    item.queuedEnd = item.lowest + item.block.size;
    this.queue.push(item);
  }

  private touch(item: Item): void {
    for (const section of item.sections) {
      if (section.dirty) continue;
      section.dirty = true;
      this.dirty.push(section);
    }
  }

  private fail(needed: number): false {
    this.deadEnds--;
    this.needed = Math.min(this.needed, needed);
    for (const item of this.queue) item.queued = false;
    this.queue.length = 0;
    return false;
  }

  /** Draws the consequences of raised and placed items; false when none can fit any more. */
  private propagate(): boolean {
    for (let item = this.queue.pop(); item; item = this.queue.pop()) {
      item.queued = false;
      this.steps += item.neighbours.length;
      for (const other of item.neighbours) {
        // Only what may have counted on resting on this item.
        if (other.placed || other.lowest <= other.floor || other.lowest < item.queuedEnd) continue;
        const support = this.lowestSupport(other);
        if (support > other.lowest && !this.raise(other, support)) return false;
      }
    }
    while (this.dirty.length > 0) {
      const section = this.dirty.pop();
      if (!section) break;
      section.dirty = false;
      this.measure(section);
      if (section.bound <= this.capacity) continue;
      if (this.strategy === 'tightest') section.weight++;
      // It is measured again on the way back.
      this.remember(section);
      return this.fail(section.bound);
    }
    return true;
  }

  private remember(section: Section): void {
    section.dirty = true;
    this.dirty.push(section);
  }

  /**
   * The height of a section when its items could move freely above their `lowest`: in that order, each starts at its
   * `lowest` or on the one before, whichever is higher (Jackson's rule for one machine with release dates).
   */
  private measure(section: Section): void {
    const { live } = section;
    this.steps += live.length;
    for (let index = 1; index < live.length; index++) {
      const item = live[index];
      if (!item) break;
      let to = index;
      while (to > 0) {
        const below = live[to - 1];
        if (!below || below.lowest <= item.lowest) break;
        live[to--] = below;
      }
      live[to] = item;
    }
    let end = 0;
    section.front = undefined;
    for (const item of live) {
      end = Math.max(end, item.lowest) + item.block.size;
      if (item.placed) continue;
      if (!section.front || (item.lowest === section.front.lowest && item.rank < section.front.rank))
        section.front = item;
    }
    section.bound = end;
    section.choices = 0;
    if (!section.front) return;
    const highest = section.front.lowest + this.capacity - end;
    for (const item of live) {
      if (item.lowest > highest) break;
      if (!item.placed) section.choices++;
    }
  }
}

function precedes(a: Item, b: Item): boolean {
  return a.lowest < b.lowest || (a.lowest === b.lowest && a.rank < b.rank);
}
