import { CompilerBug } from '../diagnostic.js';
import { isLeaf, usersOf, type Node } from '../ir/graph.js';
import { ops } from '../ir/ops/index.js';
import { formatNode, valueNames } from '../ir/text.js';
import { verifyGraph } from '../ir/verify.js';
import { kernelSources, layoutOf } from './access.js';
import { endsStep, resultsOf, type Entry, type PoolBuffer } from './entry.js';
import { overwrites } from './in-place.js';
import { transientValues } from './lifetimes.js';
import { bytesOf } from './size.js';

/**
 * Invariants of an entry, on top of those of its graph (src/ir/verify.ts). Once there are kernels:
 *  1. every node that must be computed is inside exactly one kernel, and views inside at most one;
 *  2. only a kernel's results are read outside of it, and each is inside it.
 * Once there are epochs:
 *  3. what a kernel reads was made in an earlier epoch, and kernels are listed by epoch;
 *  4. the kernel that ends the step has the last epoch to itself.
 * Once there is a pool:
 *  5. every transient result has a buffer that holds it, inside the pool and aligned;
 *  6. a buffer is kept from the epoch that makes its value to the last that reads it;
 *  7. buffers that are alive in the same epoch do not overlap, but for a result that is written over an operand, each
 *     element by the thread that alone has read it.
 */
export function verifyEntry(entry: Entry, after: string, alignment: number): void {
  verifyGraph(entry.graph, `${after} (${entry.name})`);
  if (entry.kernels.length > 0) verifyBorders(entry, after);
  if (entry.epochs.size > 0) verifyEpochs(entry, after);
  if (entry.pool) verifyPool(entry, after, alignment);
}

function bug(entry: Entry, after: string, what: string, node?: Node): never {
  const notes = node ? [formatNode(node, valueNames(entry.graph.nodes))] : [];
  throw new CompilerBug(`after ${after}, entry ${entry.name}: ${what}`, { notes });
}

function verifyBorders(entry: Entry, after: string): void {
  const { copied } = layoutOf(entry);
  const users = usersOf(entry.graph);
  const results = new Set([...entry.graph.outputs.values(), ...entry.graph.updates.values()]);
  const inside = new Set<Node>();
  for (const kernel of entry.kernels) {
    const own = resultsOf(kernel);
    for (const node of kernel.nodes) {
      if (inside.has(node)) bug(entry, after, 'a node is inside two kernels', node);
      inside.add(node);
      if (own.includes(node)) continue;
      const escapes = results.has(node) || (users.get(node) ?? []).some((user) => !kernel.nodes.has(user));
      if (escapes) bug(entry, after, 'a value inside a kernel is read outside of it', node);
    }
    const missing = own.find((result) => !kernel.nodes.has(result));
    if (missing) bug(entry, after, 'a kernel lacks its result', missing);
  }
  for (const node of entry.graph.nodes) {
    const computed = copied.has(node) || (!isLeaf(node) && ops[node.op].class !== 'view');
    if (computed && !inside.has(node)) bug(entry, after, 'a node is in no kernel', node);
  }
}

function verifyEpochs(entry: Entry, after: string): void {
  const layout = layoutOf(entry);
  const made = new Map(
    entry.kernels.flatMap((kernel) => resultsOf(kernel).map((result) => [result, entry.epochs.get(kernel)])),
  );
  let previous = 0;
  const last = Math.max(...entry.epochs.values());
  const together = [...entry.epochs].filter(([, epoch]) => epoch === last).map(([kernel]) => kernel);
  const ending = entry.kernels.find(endsStep);
  if (ending && (together.length > 1 || !together.includes(ending)))
    bug(
      entry,
      after,
      'the kernel that ends the step is not alone in the last epoch',
      ending.outputs[0].result,
    );
  for (const kernel of entry.kernels) {
    const epoch = entry.epochs.get(kernel);
    if (epoch === undefined || epoch < previous)
      bug(entry, after, 'kernels are not listed by epoch', kernel.outputs[0].result);
    previous = epoch;
    for (const source of kernelSources(kernel, layout)) {
      if (!isLeaf(source) && (made.get(source) ?? epoch) >= epoch) {
        bug(entry, after, 'a kernel reads what is not made in an earlier epoch', source);
      }
    }
  }
}

function verifyPool(entry: Entry, after: string, alignment: number): void {
  const { buffers = [], bytes = 0 } = entry.pool ?? {};
  const buffered = new Set(buffers.map((buffer) => buffer.value));
  for (const value of transientValues(entry))
    if (!buffered.has(value)) bug(entry, after, 'a result has no buffer', value);
  const uses = epochsOfUse(entry);
  const overwritten = overwrites(entry, layoutOf(entry), transientValues(entry));
  for (const a of buffers) {
    if (a.offset % alignment !== 0 || a.offset < 0 || a.offset + a.bytes > bytes) {
      bug(
        entry,
        after,
        `a buffer at ${a.offset} of ${a.bytes} bytes is misaligned or outside the pool`,
        a.value,
      );
    }
    if (a.bytes < bytesOf(a.value, entry.graph.dims)) {
      bug(entry, after, `a buffer of ${a.bytes} bytes is smaller than its value`, a.value);
    }
    const used = uses.get(a.value) ?? [];
    if (used.some((epoch) => epoch < a.firstEpoch || epoch > a.lastEpoch)) {
      bug(entry, after, `a value has its buffer in epochs ${a.firstEpoch} to ${a.lastEpoch} only`, a.value);
    }
  }
  let alive: PoolBuffer[] = [];
  for (const b of [...buffers].sort((x, y) => x.firstEpoch - y.firstEpoch)) {
    alive = alive.filter((a) => a.lastEpoch >= b.firstEpoch);
    for (const a of alive) {
      const overlap = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
      const over =
        overwritten.get(b.value) === a.value && a.offset === b.offset && a.lastEpoch === b.firstEpoch;
      if (overlap && !over)
        bug(entry, after, `two live buffers overlap at ${Math.max(a.offset, b.offset)}`, b.value);
    }
    alive.push(b);
  }
}

/** The epochs in which a kernel makes or reads each value. */
function epochsOfUse(entry: Entry): ReadonlyMap<Node, readonly number[]> {
  const layout = layoutOf(entry);
  const uses = new Map<Node, number[]>();
  for (const kernel of entry.kernels) {
    const epoch = entry.epochs.get(kernel) ?? 0;
    for (const value of [...resultsOf(kernel), ...kernelSources(kernel, layout)]) {
      const known = uses.get(value) ?? [];
      known.push(epoch);
      uses.set(value, known);
    }
  }
  return uses;
}
