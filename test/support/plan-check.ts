import {
  bindingAlignment,
  type Plan,
  type PlanEntry,
  type PlanKernel,
  type Region,
} from '../../src/runtime/plan.js';

/**
 * What a plan says about memory, derived from plan.json alone: which bytes each dispatch reads and writes, and which
 * dispatches may run at the same time. It shares nothing with the passes that placed the buffers.
 */

/** Bytes that hold one value from the epoch of their writing to that of their last reading, both included. */
interface Value {
  readonly region: Region;
  readonly writer: string;
  readonly first: number;
  last: number;
  /** Dispatches that read it in its last epoch. */
  readonly readers: Set<string>;
}

interface Access {
  readonly region: Region;
  readonly by: string;
  readonly epoch: number;
  readonly access: Extract<PlanKernel['arguments'][number], { readonly kind: 'buffer' }>['access'];
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
      access: buffers[j]?.access ?? 'write',
    }));
  });
}

const inside = (part: Region, whole: Region): boolean =>
  whole.arena === part.arena &&
  whole.offset <= part.offset &&
  part.offset + part.bytes <= whole.offset + whole.bytes;

/** What the host writes before a step and what the build holds: read without having been written by a dispatch. */
const given = ({ inputs }: Pick<Plan, 'inputs'>, region: Region): boolean =>
  region.arena === 'weights' || Object.values(inputs).some((input) => inside(region, input));

/**
 * The end of a step, where the ids and the position of the next one are written: only by a dispatch that no other can
 * run beside or after. `score` leaves both alone.
 */
function endingFaults({ inputs }: Plan, name: string, accesses: readonly Access[]): string[] {
  const last = Math.max(...accesses.map(({ epoch }) => epoch));
  const ending = new Set(accesses.filter(({ epoch }) => epoch === last).map(({ by }) => by));
  const ends = [inputs.tokens, inputs.step];
  const writes = accesses.filter(({ access, region }) => access === 'write' && given({ inputs }, region));
  const faults = writes.flatMap(({ by, region }) => {
    if (!ends.some((input) => same(input, region))) return [`${by} writes ${shown(region)}, which is given`];
    return ending.size === 1 && ending.has(by)
      ? []
      : [`${by} writes ${shown(region)} beside or before others`];
  });
  const wanted = name === 'score' ? 0 : ends.length;
  if (writes.length !== wanted) faults.push(`the step ends with ${writes.length} writes, not ${wanted}`);
  return faults;
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
  faults.push(...endingFaults(plan, name, accesses));
  /** Whether a dispatch reads each element of the region just before it stores one in its place. */
  const replaces = (by: string, region: Region): boolean =>
    accesses.some((own) => own.by === by && own.access === 'element' && same(own.region, region));
  for (const [i, { region, by, access }] of accesses.entries()) {
    // A kernel takes a value once, and may not write what it reads, but over the element that is its place.
    for (const again of accesses.slice(i + 1)) {
      if (again.by !== by || !overlaps(again.region, region)) continue;
      const kinds = [access, again.access].sort().join();
      if (kinds !== 'element,write' || !same(again.region, region))
        faults.push(`${by} binds ${shown(region)} and ${shown(again.region)}`);
    }
  }
  for (const { region, by, epoch, access } of accesses) {
    if (region.offset % bindingAlignment !== 0) faults.push(`${by} binds ${shown(region)}, misaligned`);
    const limit = region.arena === 'pool' ? entry.pool.bytes : plan.arenas[region.arena].bytes;
    if (region.offset + region.bytes > limit || limit > plan.arenas[region.arena].bytes)
      faults.push(`${by} binds ${shown(region)}, past ${limit}`);
    if (given(plan, region)) continue;
    if (access === 'write') {
      values.push({ region, writer: by, first: epoch, last: epoch, readers: new Set() });
      continue;
    }
    // What the dispatch itself writes over the value comes after it.
    const value = values.findLast((other) => same(other.region, region) && other.writer !== by);
    if (!value) faults.push(`${by} reads ${shown(region)}, which nothing wrote as one value`);
    else if (value.first >= epoch)
      faults.push(`${by} reads ${shown(region)} with no barrier after ${value.writer}`);
    else {
      if (epoch > value.last) value.readers.clear();
      value.last = epoch;
      value.readers.add(by);
    }
  }
  for (const [i, a] of values.entries()) {
    for (const b of values.slice(i + 1)) {
      if (!overlaps(a.region, b.region) || a.first > b.last || b.first > a.last) continue;
      const handedOn =
        same(a.region, b.region) &&
        a.last === b.first &&
        replaces(b.writer, b.region) &&
        [...a.readers].every((reader) => reader === b.writer);
      if (!handedOn)
        faults.push(`${b.writer} writes ${shown(b.region)} while ${shown(a.region)} of ${a.writer} is alive`);
    }
  }
  for (const { region, writer, readers } of values) {
    if (region.arena === 'pool' && readers.size === 0)
      faults.push(`nothing reads ${shown(region)} of ${writer}`);
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

/** A value written over another, element by element, needs no bytes of its own while both are alive. */
function mostBytes(values: readonly Value[], alignment: number): number {
  const transient = values.filter(({ region }) => region.arena === 'pool');
  const alive = (epoch: number): number => {
    const held = transient.filter(({ first, last }) => first <= epoch && epoch <= last);
    const bytes = new Map(held.map(({ region }) => [shown(region), region.bytes]));
    return [...bytes.values()].reduce((sum, size) => sum + Math.ceil(size / alignment) * alignment, 0);
  };
  return Math.max(0, ...transient.map(({ first }) => alive(first)));
}
