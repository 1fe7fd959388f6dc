import path from 'node:path';
import { z } from 'zod';
import { checkName, CompilerBug, UserError } from './diagnostic.js';
import { readJson, shown } from './input-file.js';
import { checkTables } from './ir/check-model.js';
import type { Model } from './ir/dsl.js';
import { isOp, type Graph, type Node } from './ir/graph.js';
import { inModelFile, loadModel } from './ir/load.js';
import { checkPolicy, policyOf, type Method, type Policy, type Quantize } from './ir/policy.js';
import { checkSparsity, sparsityOf, type Sparsify, type SparsityPolicy } from './ir/sparsity.js';
import { elementCount } from './ir/type.js';
import { emit } from './codegen/emit.js';
import { checkBudget, memoryOf } from './codegen/memory.js';
import { makePlan } from './codegen/plan.js';
import type { Entry, Kernel } from './passes/entry.js';
import { cacheDtypes, type CacheDType } from './passes/insert-kv-cache.js';
import { checkStage, runPasses, type OnStage } from './passes/pipeline.js';
import { bytesOf } from './passes/size.js';
import { targets, type Target, type TargetName } from './passes/target.js';
import { bestDevice } from './runtime/addon.js';
import { planSchema, type EntryName } from './runtime/plan.js';
import { modelFileOf } from './architectures.js';
import { checkBuildFolder, writeBuild, type Build } from './build-folder.js';
import { calibrationText, calibrationWindow, measureImportance, probesOf } from './calibrate.js';
import { openCheckpoint, type Checkpoint } from './weights/checkpoint.js';
import { checkWeights, weightDtype, withPrefix } from './weights/fit.js';
import type { Importance } from './weights/pack.js';
import { quantise, type Quantised } from './weights/quantise.js';
import { randomSeed, type RandomSeed } from './weights/random.js';
import { sourceName, sparsify } from './weights/sparsify.js';

export { targets, type TargetName } from './passes/target.js';
export type { Plan } from './runtime/plan.js';

export interface CompileOptions {
  /** Path of a model file, or a model; without it, the one that the package has for the architecture of `weights`. */
  readonly model?: string | Model | undefined;
  /** `auto`, the default, is the best device of this machine. */
  readonly target?: TargetName | 'auto';
  /**
   * Folder of a Hugging Face checkpoint, a GGUF file, or `random:SEED` for weights out of nothing. Without it there are a
   * plan and kernels, but nothing to run.
   */
  readonly weights?: string;
  /**
   * How matrices are stored: a recipe (`q4`, `q5`, `q6`, `q8`), a format (`q4g64b`, `bf16`, `stored`), a file of rules,
   * `*.json`, or the rules. By default the model's own policy, or as in the checkpoint.
   */
  readonly quantize?: Quantize;
  /**
   * Which matrices are pruned: `magnitude:0.5` keeps the larger half of each row, `magnitude:0.25:4x8` whole blocks; a
   * list with patterns of names (`*.mlp.*=magnitude:0.5,lm_head=none`), a file of rules, `*.json`, or the rules. By
   * default none.
   */
  readonly sparsify?: Sparsify;
  /** A text file: scales are searched for what the model makes of it. Needs a checkpoint with a tokenizer. */
  readonly calibrate?: string;
  /** Of the calibration. */
  readonly onCalibration?: (tokensDone: number, tokensTotal: number) => void;
  /** Tokens that the caches hold; by default the longest the model was made for. */
  readonly context?: number;
  /** Most tokens of one prefill step; 64 by default. */
  readonly chunk?: number;
  /** How keys and values are cached; by default as the target has it, in f32. f16 halves the cache and rounds them. */
  readonly kv?: CacheDType;
  /** Bytes that weights, KV cache, pool, input and output and kernels may take together; by default any number. */
  readonly memoryBudget?: number;
  /** The build folder; `build/<model name>` by default. With null, nothing is written. */
  readonly out?: string | null;
  /** By default true. Without, every operation is a dispatch of its own: to see what fusing brings. */
  readonly fuse?: boolean;
  readonly onStage?: OnStage;
  /** The last pass to run; nothing is written then. */
  readonly stopAfter?: string;
  /** Of packing the weights. First called at its beginning, with more than 0 bytes if an interrupted build is continued. */
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
}

export interface EntrySummary {
  readonly dispatches: number;
  /** Most dispatches that one layer of a step takes; 0 without layers. */
  readonly dispatchesPerLayer: number;
  /** Dispatches of a step that belong to no layer. */
  readonly dispatchesOutside: number;
  readonly barriers: number;
  /** `optimal`: no plan needs fewer bytes; proven. */
  readonly pool: { readonly bytes: number; readonly lowerBound: number; readonly optimal: boolean };
}

/** What `upgc compile --json` prints. */
export interface CompileSummary {
  readonly model: string;
  readonly target: TargetName;
  /** The build folder, or null when nothing was written. */
  readonly out: string | null;
  readonly context: number;
  /** Elements of all weights. */
  readonly parameters: number;
  /** Nodes of the model's graph. */
  readonly nodes: number;
  /** Kernels in kernels.metal. */
  readonly kernels: number;
  /** That of decode. */
  readonly dispatchesPerLayer: number;
  readonly entries: Readonly<Record<EntryName, EntrySummary>>;
  readonly kvBytes: number;
  /** Without what alignment adds. */
  readonly weightBytes: number;
  /** How many weights are stored in which way; `sparse f16` with where its elements are. */
  readonly formats: Readonly<Record<string, { readonly weights: number; readonly bytes: number }>>;
  /** On average. */
  readonly bitsPerWeight: number;
  /** What --quantize and --sparsify asked for and could not be. */
  readonly notes: readonly string[];
  /** Device memory of a session: weights, caches, pool, input and output. */
  readonly totalBytes: number;
  readonly ms: number;
}

/** A compiled model in memory. */
export interface Compiled extends Build {
  readonly entries: readonly Entry[];
}

/** Compiles a model into a build folder. Returns undefined when `stopAfter` ends it early. Throws UserError. */
export async function compile(options: CompileOptions): Promise<CompileSummary | undefined> {
  const started = performance.now();
  if (options.stopAfter !== undefined) checkStage(options.stopAfter);
  const target = chooseTarget(options.target ?? 'auto');
  const { model, random, checkpoint, built } = openModel(options);
  const out = options.out === null ? null : path.resolve(options.out ?? path.join('build', model.name));
  if (options.out === '')
    throw new UserError('the build folder has no name', { notes: ['give --out a folder'] });
  if (out !== null && options.stopAfter === undefined) checkBuildFolder(out, options.weights !== undefined);
  const policy = policyOfOptions(options.quantize ?? model.quantize ?? 'stored');
  const sparse = sparsify(
    built.graph,
    options.sparsify === undefined ? [] : sparsityOfOptions(options.sparsify),
  );
  const quantised = quantise(sparse.graph, policy, checkpoint);
  const { graph, methods } = quantised;
  const context = options.context ?? built.context;
  checkCount('context', context);
  checkCount('chunk', options.chunk ?? 1);
  if (options.kv !== undefined) checkName('cache type', 'cache types', options.kv, cacheDtypes);
  checkMemoryBudget(options.memoryBudget);
  const importance = await calibrate(options, built.graph, { checkpoint, methods, target, context, out });
  const compiled = compileGraph(graph, {
    ...options,
    target,
    context,
    checkpoint,
    random,
    methods,
    importance,
  });
  if (!compiled) return undefined;
  if (options.memoryBudget !== undefined) {
    const { chunk, kv, fuse } = options;
    checkBudget(compiled.plan, memoryOf(compiled.plan, compiled.kernels), options.memoryBudget, (shorter) => {
      const other = compileGraph(graph, { target, context: shorter, chunk, kv, fuse, checkpoint });
      if (!other) throw new CompilerBug('a compilation without a last pass ended early');
      return memoryOf(other.plan, other.kernels);
    });
  }
  if (out !== null) await writeBuild(out, compiled, checkpoint ?? random, options.onProgress);
  return summarise(
    { ...quantised, notes: [...sparse.notes, ...quantised.notes] },
    compiled,
    out,
    performance.now() - started,
  );
}

/** The model that the options mean, with the settings of its weights. */
export function openModel({ model: given, weights }: Pick<CompileOptions, 'model' | 'weights'>): {
  readonly model: Model;
  readonly random: RandomSeed | undefined;
  readonly checkpoint: Checkpoint | undefined;
  readonly built: ReturnType<Model['build']>;
} {
  const random = weights === undefined ? undefined : randomSeed(weights);
  const opened = weights === undefined || random ? undefined : openCheckpoint(weights);
  const model = chooseModel(given, opened);
  const checkpoint = opened && withPrefix(opened, model.prefix);
  const built = buildModel(model, checkpoint);
  if (checkpoint) checkWeights(built.graph, checkpoint);
  return { model, random, checkpoint, built };
}

/** What the text of `calibrate` tells about the columns of matrices; nothing when nothing will be written. */
async function calibrate(
  { calibrate: file, chunk, stopAfter, onCalibration }: CompileOptions,
  model: Graph,
  chosen: {
    readonly checkpoint: Checkpoint | undefined;
    readonly methods: ReadonlyMap<string, Method>;
    readonly target: Target;
    readonly context: number;
    readonly out: string | null;
  },
): Promise<Importance | undefined> {
  if (file === undefined) return undefined;
  const { checkpoint, methods, target, context, out } = chosen;
  const text = calibrationText(file, checkpoint, methods);
  if (!checkpoint || out === null || stopAfter !== undefined) return undefined;
  const { graph } = quantise(model, policyOf('stored'), checkpoint);
  const probes = probesOf(graph, methods);
  const build = compileGraph(graph, {
    target,
    context: Math.min(context, calibrationWindow),
    chunk,
    checkpoint,
    kept: new Map([...probes].map(([name, { operand }]) => [operand, name])),
  });
  if (!build) throw new CompilerBug('a compilation without a last pass ended early');
  return measureImportance(text, probes, { build, checkpoint, beside: out }, onCalibration);
}

function policyOfOptions(quantize: Quantize): Policy {
  if (typeof quantize !== 'string' || !quantize.endsWith('.json')) return policyOf(quantize);
  return checkPolicy(readJson(quantize), shown(quantize));
}

function sparsityOfOptions(sparsify: Sparsify): SparsityPolicy {
  if (typeof sparsify !== 'string' || !sparsify.endsWith('.json')) return sparsityOf(sparsify);
  return checkSparsity(readJson(sparsify), shown(sparsify));
}

function chooseModel(given: string | Model | undefined, checkpoint: Checkpoint | undefined): Model {
  if (given === undefined && !checkpoint) {
    throw new UserError('there is neither a model nor weights that say of which model they are', {
      notes: ['give a model file, MODEL.graph.ts, or --weights, or both'],
    });
  }
  const file = given ?? (checkpoint && modelFileOf(checkpoint)) ?? '';
  return typeof file === 'string' ? loadModel(file) : file;
}

function chooseTarget(name: string): Target {
  const chosen = name === 'auto' ? bestDevice() : name;
  if (Object.hasOwn(targets, chosen)) return targets[chosen as TargetName];
  throw new UserError(`there is no target '${name}'`, {
    notes: [`targets: auto, ${Object.keys(targets).join(', ')}`],
  });
}

function checkCount(what: string, value: number): void {
  if (!Number.isInteger(value) || value < 1 || value >= 2 ** 31) {
    throw new UserError(`${what} must be a whole number of tokens from 1 to 2^31 - 1, not ${value}`);
  }
}

function checkMemoryBudget(value: number | undefined): void {
  if (value === undefined || (Number.isSafeInteger(value) && value > 0)) return;
  throw new UserError(`memoryBudget must be a whole number of bytes, at least 1, not ${value}`);
}

function buildModel(model: Model, checkpoint: Checkpoint | undefined): ReturnType<Model['build']> {
  try {
    return model.build(checkpoint?.config ?? {}, (name) => weightDtype(checkpoint?.tensors.get(name)));
  } catch (error) {
    if (!(error instanceof z.ZodError)) throw ofSettings(inModelFile(error), checkpoint);
    const where = checkpoint?.configFile ?? `the defaults of model ${model.name}`;
    throw new UserError(`${where} does not fit model ${model.name}`, {
      notes: error.issues.map((issue) => {
        const setting = issue.path.join('.') || 'config';
        const own = checkpoint?.settingNames.get(setting);
        return `${own === undefined ? setting : `${own} (${setting})`}: ${issue.message}`;
      }),
    });
  }
}

/** What a graph complains of often comes from its settings. */
function ofSettings(error: unknown, checkpoint: Checkpoint | undefined): unknown {
  if (!checkpoint || !(error instanceof UserError)) return error;
  const notes = [...(error.detail.notes ?? []), `the settings are those of ${shown(checkpoint.configFile)}`];
  return new UserError(error.message, { ...error.detail, notes });
}

export interface GraphOptions {
  readonly target: Target;
  readonly context: number;
  readonly chunk?: number | undefined;
  readonly kv?: CacheDType | undefined;
  readonly checkpoint?: Checkpoint | undefined;
  readonly methods?: ReadonlyMap<string, Method> | undefined;
  readonly importance?: Importance | undefined;
  /** See CacheOptions. */
  readonly kept?: ReadonlyMap<Node, string> | undefined;
  /** Weights without a checkpoint. */
  readonly random?: RandomSeed | undefined;
  readonly fuse?: boolean | undefined;
  readonly onStage?: OnStage | undefined;
  readonly stopAfter?: string | undefined;
}

/** Runs the passes and the code generator on a graph; undefined when `stopAfter` ends it early. */
export function compileGraph(graph: Graph, options: GraphOptions): Compiled | undefined {
  const { target, context, checkpoint } = options;
  checkTables(graph);
  const chunk = Math.min(options.chunk ?? 64, context);
  const entries = runPasses(graph, { ...options, context, chunk });
  if (!entries) return undefined;
  const emitted = emit(graph.name, entries, target);
  const { plan, memory } = makePlan(entries, emitted, {
    model: graph.name,
    target,
    bosToken: checkpoint?.bosToken ?? null,
    eosTokens: checkpoint?.eosTokens ?? [],
    packed: checkpoint !== undefined || options.random !== undefined,
  });
  const checked = planSchema.safeParse(plan);
  if (!checked.success) throw new CompilerBug(`the plan is not one: ${z.prettifyError(checked.error)}`);
  return {
    plan,
    kernels: emitted.text,
    entries,
    weights: memory.weights,
    target,
    methods: options.methods ?? new Map(),
    importance: options.importance ?? new Map(),
  };
}

function summarise(
  { graph, notes }: Quantised,
  { plan, entries }: Compiled,
  out: string | null,
  ms: number,
): CompileSummary {
  const weights = graph.nodes.filter((node) => isOp(node, 'weight'));
  const count = weights.reduce((total, { attrs: { shape, pruned } }) => {
    if (pruned) return pruned.part === 'values' ? total + elementCount(pruned.of) : total;
    return total + elementCount(shape);
  }, 0);
  const formats: Record<string, { weights: number; bytes: number }> = {};
  const valuesOf = new Map(weights.map((node) => [node.attrs.name, node.type.dtype]));
  for (const node of weights) {
    const { pruned } = node.attrs;
    const format = pruned ? `sparse ${valuesOf.get(sourceName(node.attrs))}` : node.type.dtype;
    const own = (formats[format] ??= { weights: 0, bytes: 0 });
    if (pruned?.part !== 'columns') own.weights++;
    own.bytes += bytesOf(node, {});
  }
  const weightBytes = Object.values(formats).reduce((total, { bytes }) => total + bytes, 0);
  const entrySummary = (name: EntryName): EntrySummary => ({
    dispatches: plan.entries[name].dispatches.length,
    ...dispatchesByLayer(entries.find((entry) => entry.name === name)?.kernels ?? []),
    barriers: plan.entries[name].dispatches.filter((dispatch) => dispatch.barrier).length,
    pool: plan.entries[name].pool,
  });
  const { arenas } = plan;
  const decode = entrySummary('decode');
  return {
    model: plan.model.name,
    target: plan.target,
    out,
    context: plan.context,
    parameters: count,
    nodes: graph.nodes.length,
    kernels: plan.kernels.length,
    dispatchesPerLayer: decode.dispatchesPerLayer,
    entries: {
      decode,
      prefill: entrySummary('prefill'),
      score: entrySummary('score'),
    },
    kvBytes: arenas.state.bytes,
    weightBytes,
    formats,
    bitsPerWeight: (8 * weightBytes) / Math.max(1, count),
    notes,
    totalBytes: arenas.weights.bytes + arenas.state.bytes + arenas.pool.bytes + arenas.io.bytes,
    ms: Math.round(ms),
  };
}

/** A kernel belongs to the layer of its first result. */
function dispatchesByLayer(
  kernels: readonly Kernel[],
): Pick<EntrySummary, 'dispatchesPerLayer' | 'dispatchesOutside'> {
  const perLayer = new Map<number | undefined, number>();
  for (const { outputs } of kernels) {
    const { layer } = outputs[0].result.origin;
    perLayer.set(layer, (perLayer.get(layer) ?? 0) + 1);
  }
  const dispatchesOutside = perLayer.get(undefined) ?? 0;
  perLayer.delete(undefined);
  return { dispatchesPerLayer: Math.max(0, ...perLayer.values()), dispatchesOutside };
}
