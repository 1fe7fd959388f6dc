import { bindingAlignment, type Plan, type PlanEntry, type Region } from '../../src/runtime/plan.js';

/**
 * What a plan says about memory, derived from plan.json alone: which bytes each dispatch reads and writes, and which
 * dispatches may run at the same time. It shares nothing with the passes that placed the buffers.
 */

/** The kernel arguments that are written; all others are read. */
const written = /^(y|cache)\d*$/;

/** Bytes that hold one value from the epoch of their writing to that of their last reading, both included. */
interface Value {
  readonly region: Region;
  readonly writer: string;
  readonly first: number;
  last: number;
  read: boolean;
}

interface Access {
  readonly region: Region;
  readonly by: string;
  readonly epoch: number;
  readonly writes: boolean;
}

const overlaps = (a: Region, b: Region): boolean =>
  a.arena === b.arena && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
const same = (a: Region, b: Region): boolean =>
  a.arena === b.arena && a.offset === b.offset && a.bytes === b.bytes;
const shown = ({ arena, offset, bytes }: Region): string => `${arena} [${offset}, ${offset + bytes})`;

/** Every access of an entry, in order of dispatch; a barrier begins an epoch. */
function accessesOf(plan: Plan, entry: PlanEntry): Access[] {
  let epoch = 0;
  return entry.dispatches.flatMap((dispatch, i) => {
    if (dispatch.barrier) epoch++;
    const kernel = plan.kernels[dispatch.kernel];
    const buffers = kernel?.arguments.filter((argument) => argument.kind === 'buffer') ?? [];
    if (buffers.length !== dispatch.bindings.length)
      throw new Error(`dispatch ${i} binds ${dispatch.bindings.length} buffers of ${buffers.length}`);
    return dispatch.bindings.map((region, j) => ({
      region,
      by: `dispatch ${i} ${kernel?.name ?? ''}`,
      epoch,
      writes: written.test(buffers[j]?.name ?? ''),
    }));
  });
}

/** What the host writes before a step and what the build holds: read without having been written by a dispatch. */
function given(plan: Plan, region: Region): boolean {
  const { tokens, step } = plan.inputs;
  const inside = (whole: Region): boolean =>
    whole.arena === region.arena &&
    whole.offset <= region.offset &&
    region.offset + region.bytes <= whole.offset + whole.bytes;
  return region.arena === 'weights' || inside(tokens) || inside(step);
}

export interface EntryReport {
  /** What is wrong, in words; empty when nothing is. */
  readonly faults: readonly string[];
  /** The most bytes of the pool that hold values in one epoch, each value rounded up to `alignment`. */
  readonly mostAlive: number;
}

/** Checks one entry of a plan. */
export function checkEntry(plan: Plan, name: keyof Plan['entries'], alignment = 1): EntryReport {
  const entry = plan.entries[name];
  const faults: string[] = [];
  const values: Value[] = [];
  const accesses = accessesOf(plan, entry);
  for (const [i, { region, by }] of accesses.entries()) {
    // A kernel takes a value once, and may not write what it reads.
    const again = accesses.slice(i + 1).find((other) => other.by === by && overlaps(other.region, region));
    if (again) faults.push(`${by} binds ${shown(region)} and ${shown(again.region)}`);
  }
  for (const { region, by, epoch, writes } of accesses) {
    if (region.offset % bindingAlignment !== 0) faults.push(`${by} binds ${shown(region)}, misaligned`);
    const limit = region.arena === 'pool' ? entry.pool.bytes : plan.arenas[region.arena].bytes;
    if (region.offset + region.bytes > limit || limit > plan.arenas[region.arena].bytes)
      faults.push(`${by} binds ${shown(region)}, past ${limit}`);
    if (writes) {
      if (given(plan, region)) faults.push(`${by} writes ${shown(region)}, which is given`);
      values.push({ region, writer: by, first: epoch, last: epoch, read: false });
      continue;
    }
    if (given(plan, region)) continue;
    const value = values.findLast((candidate) => same(candidate.region, region));
    if (!value) faults.push(`${by} reads ${shown(region)}, which nothing wrote as one value`);
    else if (value.first >= epoch)
      faults.push(`${by} reads ${shown(region)} with no barrier after ${value.writer}`);
    else [value.last, value.read] = [epoch, true];
  }
  for (const [i, a] of values.entries()) {
    for (const b of values.slice(i + 1)) {
      if (overlaps(a.region, b.region) && a.first <= b.last && b.first <= a.last)
        faults.push(`${b.writer} writes ${shown(b.region)} while ${shown(a.region)} of ${a.writer} is alive`);
    }
  }
  for (const { region, writer, read } of values) {
    if (region.arena === 'pool' && !read) faults.push(`nothing reads ${shown(region)} of ${writer}`);
  }
  for (const output of Object.values(entry.outputs)) {
    if (!values.some(({ region }) => same(region, output)))
      faults.push(`nothing writes the output ${shown(output)}`);
  }
  const mostAlive = mostBytes(values, alignment);
  if (entry.pool.lowerBound < mostBytes(values, 1))
    faults.push(`the lower bound of ${entry.pool.lowerBound} bytes is less than what is alive`);
  if (entry.pool.bytes < entry.pool.lowerBound) faults.push('the pool is smaller than its lower bound');
  return { faults, mostAlive };
}

function mostBytes(values: readonly Value[], alignment: number): number {
  const transient = values.filter(({ region }) => region.arena === 'pool');
  const alive = (epoch: number): number =>
    transient
      .filter(({ first, last }) => first <= epoch && epoch <= last)
      .reduce((sum, { region }) => sum + Math.ceil(region.bytes / alignment) * alignment, 0);
  return Math.max(0, ...transient.map(({ first }) => alive(first)));
}
