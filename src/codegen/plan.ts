import { CompilerBug, Unsupported } from '../diagnostic.js';
import { isOp, leafKey, type Leaf, type Node } from '../ir/graph.js';
import { samplingFields } from '../ir/ops/sample.js';
import { isPackedName, packedFormats, placePlanes } from '../ir/packed.js';
import { bindShape, elementCount, formatType, type DimBindings } from '../ir/type.js';
import type { Entry } from '../passes/entry.js';
import { alignUp, bytesOf, matrixShape, type PlaneLayout } from '../passes/size.js';
import type { Target } from '../passes/target.js';
import { kernelName } from '../passes/text.js';
import {
  planVersion,
  type ArenaName,
  type EntryName,
  type Plan,
  type PlanEntry,
  type PlanKernel,
  type Region,
} from '../runtime/plan.js';
import type { Operand, PlaneOperand } from './arguments.js';
import type { Emitted, EmittedKernel } from './emit.js';

export interface PlanOptions {
  readonly model: string;
  readonly target: Target;
  readonly bosToken: number | null;
  readonly eosTokens: readonly number[];
  /** Whether weights.bin will lie beside the plan. */
  readonly packed: boolean;
}

/** A tensor of weights.bin: of the checkpoint, or computed. */
export interface Placed {
  readonly node: Extract<Leaf, { readonly op: 'weight' | 'rope_table' | 'state' }>;
  readonly region: Region;
}

/** Hands out consecutive, aligned regions of one arena. */
class Arena {
  bytes = 0;

  constructor(
    private readonly arena: ArenaName,
    private readonly alignment: number,
  ) {}

  place(bytes: number): Region {
    const offset = this.bytes;
    this.bytes = alignUp(offset + bytes, this.alignment);
    return { arena: this.arena, offset, bytes };
  }
}

/** The memory of a plan: where every value that outlives a kernel lies. */
export interface Memory {
  readonly weights: readonly Placed[];
  readonly states: readonly Placed[];
}

interface Regions extends Memory {
  readonly arenas: Readonly<Record<'weights' | 'state' | 'io', Arena>>;
  readonly tokens: Region;
  readonly step: Region;
  readonly sampling: Region;
  readonly seed: Region;
  readonly logits: Region;
}

/** Writes down offsets, bindings and launches: what plan.json holds. */
export function makePlan(
  entries: readonly Entry[],
  emitted: Emitted,
  options: PlanOptions,
): { plan: Plan; memory: Memory } {
  checkSizes(entries);
  const regions = placeLeaves(entries, options.target);
  const planned = new Map(
    entries.map((entry) => [entry.name, planEntry(entry, emitted, regions, options.target)]),
  );
  const plannedEntry = (name: EntryName): PlanEntry => {
    const entry = planned.get(name);
    if (!entry) throw new CompilerBug(`there is no entry ${name}`);
    return entry;
  };
  const [first] = entries;
  const vocabulary = Number(first?.graph.outputs.get('logits')?.type.shape[1]);
  const { weights, state, io } = regions.arenas;
  const tensor = ({ node, region: { offset, bytes } }: Placed): Plan['weights'][number] => ({
    name: isOp(node, 'rope_table') ? leafKey(node) : node.attrs.name,
    dtype: node.type.dtype,
    shape: bindShape(node.type.shape, first?.graph.dims ?? {}),
    offset,
    bytes,
  });
  const plan: Plan = {
    version: planVersion,
    model: {
      name: options.model,
      vocabulary,
      bosToken: options.bosToken,
      eosTokens: [...options.eosTokens],
    },
    target: options.target.name,
    simdWidth: options.target.simdWidth,
    context: first?.graph.dims['C'] ?? 0,
    arenas: {
      weights: { bytes: weights.bytes, packed: options.packed },
      state: { bytes: state.bytes },
      pool: { bytes: Math.max(0, ...entries.map((entry) => entry.pool?.bytes ?? 0)) },
      io: { bytes: io.bytes },
    },
    inputs: {
      tokens: regions.tokens,
      step: regions.step,
      sampling: regions.sampling,
      seed: regions.seed,
    },
    weights: regions.weights.map(tensor),
    state: regions.states.map((placed) => ({ ...tensor(placed), ring: placed.node.type.shape[0] !== 'C' })),
    kernels: emitted.kernels.map((kernel, index) => sizedKernel(kernel, index, [...planned.values()])),
    entries: {
      decode: plannedEntry('decode'),
      prefill: plannedEntry('prefill'),
      score: plannedEntry('score'),
    },
  };
  return { plan, memory: regions };
}

/**
 * A kernel's text is the same wherever it is launched, so no launch needs more of a buffer than the smallest that any
 * launch binds.
 */
function sizedKernel(kernel: EmittedKernel, index: number, entries: readonly PlanEntry[]): PlanKernel {
  const launches = entries
    .flatMap(({ dispatches }) => dispatches)
    .filter((dispatch) => dispatch.kernel === index);
  let buffer = 0;
  const sized = kernel.arguments.map((argument) => {
    if (argument.kind !== 'buffer') return argument;
    const position = buffer++;
    const bytes = launches.map(({ bindings }) => bindings[position]?.bytes ?? 0);
    return { ...argument, bytes: Math.min(...bytes) };
  });
  return { ...kernel, arguments: sized };
}

/** Kernels count elements in 32 bits. */
function checkSizes(entries: readonly Entry[]): void {
  for (const { graph } of entries) {
    for (const node of graph.nodes) {
      const shape = bindShape(node.type.shape, graph.dims);
      if (elementCount(shape) < 2 ** 32) continue;
      throw new Unsupported(
        `${node.op} of [${shape.join(', ')}]: a tensor can have at most 2^32 - 1 elements`,
        {
          span: node.origin.span,
          notes: ['a shorter --context or a smaller --chunk may do'],
        },
      );
    }
  }
}

function placeLeaves(entries: readonly Entry[], target: Target): Regions {
  const { alignment } = target;
  const arenas = {
    weights: new Arena('weights', alignment),
    state: new Arena('state', alignment),
    io: new Arena('io', alignment),
  };
  const placed = new Map<string, Placed>();
  for (const { graph } of entries) {
    for (const node of graph.nodes) {
      if (!isOp(node, 'weight', 'state', 'rope_table')) continue;
      const key = leafKey(node);
      if (placed.has(key)) continue;
      const arena = node.op === 'state' ? arenas.state : arenas.weights;
      placed.set(key, { node, region: arena.place(bytesOf(node, graph.dims, target)) });
    }
  }
  const all = [...placed.values()];
  return {
    arenas,
    weights: all.filter(({ node }) => node.op !== 'state'),
    states: all.filter(({ node }) => node.op === 'state'),
    // One more than the context: the id that follows the last token.
    tokens: arenas.io.place(((entries[0]?.graph.dims['C'] ?? 0) + 1) * 4),
    step: arenas.io.place(8),
    sampling: arenas.io.place(samplingFields.length * 4),
    seed: arenas.io.place(4),
    logits: arenas.io.place(
      Math.max(0, ...entries.map(({ graph }) => sizeOf(graph.outputs.get('logits'), graph.dims))),
    ),
  };
}

function sizeOf(node: Node | undefined, dims: DimBindings): number {
  return node ? bytesOf(node, dims) : 0;
}

function planEntry(entry: Entry, emitted: Emitted, regions: Regions, target: Target): PlanEntry {
  const { graph } = entry;
  const where = valueRegions(entry, regions);
  const regionOf = (operand: Operand): Region => {
    if (operand === 'step') return regions.step;
    const node = 'plane' in operand ? operand.matrix : operand;
    const region = where.get(node);
    if (!region) throw new CompilerBug(`${node.op} has no place in memory`);
    return 'plane' in operand ? planeRegion(operand, region, target) : region;
  };
  let epoch = 0;
  const dispatches = entry.kernels.map((kernel) => {
    const launch = emitted.launches.get(kernel);
    if (!launch) throw new CompilerBug(`kernel ${kernelName(kernel)} was not emitted`);
    const own = entry.epochs.get(kernel) ?? 0;
    const barrier = own !== epoch;
    epoch = own;
    const bindings = launch.operands.map(regionOf);
    checkBindings(emitted.kernels[launch.kernel], bindings);
    const { scope, name } = kernel.outputs[0].result.origin;
    return {
      kernel: launch.kernel,
      label: [scope, name ?? kernelName(kernel)].filter(Boolean).join('.'),
      grid: [...launch.grid] as [number, number, number],
      barrier,
      bindings,
    };
  });
  const logits = graph.outputs.get('logits');
  if (!logits) throw new CompilerBug(`entry ${entry.name} has no logits`);
  return {
    tokens: graph.dims['T'] ?? 1,
    dispatches,
    pool: {
      bytes: entry.pool?.bytes ?? 0,
      lowerBound: entry.pool?.lowerBound ?? 0,
      optimal: entry.pool?.optimal ?? true,
    },
    outputs: { logits: regionOf(logits) },
  };
}

/** Where a plane of a packed matrix lies that is at `region`. */
function planeRegion({ matrix, plane }: PlaneOperand, region: Region, layout: PlaneLayout): Region {
  const { dtype, shape } = matrix.type;
  const format = isPackedName(dtype) ? packedFormats[dtype] : undefined;
  const placed = format && placePlanes(format, matrixShape(bindShape(shape, {})), layout);
  const found = placed?.planes.find(({ name }) => name === plane);
  if (!found) throw new CompilerBug(`${formatType(matrix.type)} has no plane ${plane}`);
  return { arena: region.arena, offset: region.offset + found.offset, bytes: found.size };
}

/** A kernel may write over what it reads only where its text allows that. */
function checkBindings(kernel: EmittedKernel | undefined, bindings: readonly Region[]): void {
  const buffers = kernel?.arguments.filter((argument) => argument.kind === 'buffer') ?? [];
  const overlap = (a: Region, b: Region): boolean =>
    a.arena === b.arena && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
  buffers.forEach((written, i) => {
    const target = bindings[i];
    if (written.access !== 'write' || !target) return;
    buffers.forEach((other, j) => {
      const region = bindings[j];
      if (i === j || !region || !overlap(target, region)) return;
      if (other.access === 'element' && region.offset === target.offset && region.bytes === target.bytes)
        return;
      throw new CompilerBug(`${kernel?.name ?? ''} would write ${written.name} over ${other.name}`);
    });
  });
}

function valueRegions({ graph, kernels, pool }: Entry, regions: Regions): ReadonlyMap<Node, Region> {
  const where = new Map<Node, Region>();
  const { tokens, sampling, seed } = regions;
  const inputs: Readonly<Record<string, Region>> = { tokens, sampling, seed };
  const leaves = new Map(
    [...regions.weights, ...regions.states].map(({ node, region }) => [leafKey(node), region]),
  );
  for (const node of graph.nodes) {
    const region = isOp(node, 'weight', 'state', 'rope_table') ? leaves.get(leafKey(node)) : undefined;
    if (region) where.set(node, region);
    const input = isOp(node, 'input') ? inputs[node.attrs.name] : undefined;
    if (input) where.set(node, input);
  }
  for (const { value, offset } of pool?.buffers ?? []) {
    where.set(value, { arena: 'pool', offset, bytes: bytesOf(value, graph.dims) });
  }
  for (const [name, node] of graph.outputs) {
    where.set(node, name === 'next' ? tokens : { ...regions.logits, bytes: bytesOf(node, graph.dims) });
  }
  for (const { append } of kernels.flatMap(({ outputs }) => outputs)) {
    const cache = append?.inputs[0];
    const region = cache && where.get(cache);
    if (append && region) where.set(append, region);
  }
  return where;
}
