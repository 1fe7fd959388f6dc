import path from 'node:path';
import { z } from 'zod';
import { CompilerBug, UserError } from './diagnostic.js';
import { checkTables } from './ir/check-model.js';
import type { Model } from './ir/dsl.js';
import { isOp, type Graph } from './ir/graph.js';
import { inModelFile, loadModel } from './ir/load.js';
import { bytesPerElement, elementCount } from './ir/type.js';
import { emit } from './codegen/emit.js';
import { checkBudget, memoryOf } from './codegen/memory.js';
import { makePlan } from './codegen/plan.js';
import type { Entry, Kernel } from './passes/entry.js';
import { checkStage, runPasses, type OnStage } from './passes/pipeline.js';
import { targets, type Target, type TargetName } from './passes/target.js';
import { bestDevice } from './runtime/addon.js';
import { planSchema, type EntryName } from './runtime/plan.js';
import { modelFileOf } from './architectures.js';
import { checkBuildFolder, writeBuild, type Build } from './build-folder.js';
import { openCheckpoint, type Checkpoint } from './weights/checkpoint.js';
import { checkWeights, weightDtype, withPrefix } from './weights/fit.js';

export { targets, type TargetName } from './passes/target.js';
export type { Plan } from './runtime/plan.js';

export interface CompileOptions {
  /** Path of a model file, or a model; without it, the one that the package has for the architecture of `weights`. */
  readonly model?: string | Model | undefined;
  /** `auto`, the default, is the best device of this machine. */
  readonly target?: TargetName | 'auto';
  /** Folder of a Hugging Face checkpoint, or a GGUF file. Without it there are a plan and kernels, but nothing to run. */
  readonly weights?: string;
  /** Tokens that the caches hold; by default the longest the model was made for. */
  readonly context?: number;
  /** Most tokens of one prefill step; 64 by default. */
  readonly chunk?: number;
  /** Bytes that weights, KV cache, pool, input and output and kernels may take together; by default any number. */
  readonly memoryBudget?: number;
  /** The build folder; `build/<model name>` by default. With null, nothing is written. */
  readonly out?: string | null;
  readonly onStage?: OnStage;
  /** The last pass to run; nothing is written then. */
  readonly stopAfter?: string;
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
  readonly weightBytes: number;
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
  const opened = options.weights === undefined ? undefined : openCheckpoint(options.weights);
  const model = chooseModel(options.model, opened);
  const out = options.out === null ? null : path.resolve(options.out ?? path.join('build', model.name));
  if (options.out === '')
    throw new UserError('the build folder has no name', { notes: ['give --out a folder'] });
  if (out !== null && options.stopAfter === undefined) checkBuildFolder(out, options.weights !== undefined);
  const checkpoint = opened && withPrefix(opened, model.prefix);
  const built = buildModel(model, checkpoint);
  if (checkpoint) checkWeights(built.graph, checkpoint);
  const context = options.context ?? built.context;
  checkCount('context', context);
  checkCount('chunk', options.chunk ?? 1);
  checkMemoryBudget(options.memoryBudget);
  const compiled = compileGraph(built.graph, { ...options, target, context, checkpoint });
  if (!compiled) return undefined;
  if (options.memoryBudget !== undefined) {
    const { chunk } = options;
    checkBudget(compiled.plan, memoryOf(compiled.plan, compiled.kernels), options.memoryBudget, (shorter) => {
      const other = compileGraph(built.graph, { target, context: shorter, chunk, checkpoint });
      if (!other) throw new CompilerBug('a compilation without a last pass ended early');
      return memoryOf(other.plan, other.kernels);
    });
  }
  if (out !== null) await writeBuild(out, compiled, checkpoint, options.onProgress);
  return summarise(built.graph, compiled, out, performance.now() - started);
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
    if (!(error instanceof z.ZodError)) throw inModelFile(error);
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

export interface GraphOptions {
  readonly target: Target;
  readonly context: number;
  readonly chunk?: number | undefined;
  readonly checkpoint?: Checkpoint | undefined;
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
    packed: checkpoint !== undefined,
  });
  const checked = planSchema.safeParse(plan);
  if (!checked.success) throw new CompilerBug(`the plan is not one: ${z.prettifyError(checked.error)}`);
  return { plan, kernels: emitted.text, entries, weights: memory.weights };
}

function summarise(
  graph: Graph,
  { plan, entries }: Compiled,
  out: string | null,
  ms: number,
): CompileSummary {
  const weights = graph.nodes.filter((node) => isOp(node, 'weight'));
  const parameters = weights.map((node) => elementCount(node.attrs.shape));
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
    parameters: parameters.reduce((a, b) => a + b, 0),
    nodes: graph.nodes.length,
    kernels: plan.kernels.length,
    dispatchesPerLayer: decode.dispatchesPerLayer,
    entries: {
      decode,
      prefill: entrySummary('prefill'),
      score: entrySummary('score'),
    },
    kvBytes: arenas.state.bytes,
    weightBytes: weights.reduce(
      (total, node, i) => total + (parameters[i] ?? 0) * bytesPerElement[node.type.dtype],
      0,
    ),
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
