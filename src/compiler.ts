import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { nearest, UserError } from './diagnostic.js';
import type { Model } from './ir/dsl.js';
import { evaluateNode } from './ir/interpret.js';
import { isOp, type Graph } from './ir/graph.js';
import { loadModel } from './ir/load.js';
import { bytesPerElement, elementCount, formatType, type DimBindings, type DType } from './ir/type.js';
import { emit } from './codegen/emit.js';
import { makePlan, type Placed } from './codegen/plan.js';
import type { Entry } from './passes/entry.js';
import { checkStage, runPasses } from './passes/pipeline.js';
import { targets, type Target, type TargetName } from './passes/target.js';
import { buildFiles, type EntryName, type Plan } from './runtime/plan.js';
import { openCheckpoint, type Checkpoint } from './weights/checkpoint.js';
import { packWeights, type PackedWeight } from './weights/pack.js';

export { targets, type TargetName } from './passes/target.js';
export type { Plan } from './runtime/plan.js';

export interface CompileOptions {
  /** Path of a model file, or a model. */
  readonly model: string | Model;
  /** `auto`, the default, is the best device of this machine. */
  readonly target?: TargetName | 'auto';
  /** Folder of a Hugging Face checkpoint. Without it there are a plan and kernels, but nothing to run. */
  readonly weights?: string;
  /** Tokens that the caches hold; by default the longest the model was made for. */
  readonly context?: number;
  /** Most tokens of one prefill step; 64 by default. */
  readonly chunk?: number;
  /** The build folder; `build/<model name>` by default. */
  readonly out?: string;
  /** Called with the text of each stage right after it. */
  readonly onStage?: (stage: string, text: () => string) => void;
  /** The last pass to run; nothing is written then. */
  readonly stopAfter?: string;
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
}

export interface EntrySummary {
  readonly dispatches: number;
  readonly barriers: number;
  readonly pool: { readonly bytes: number; readonly lowerBound: number };
}

/** What `upgc compile --json` prints. */
export interface CompileSummary {
  readonly model: string;
  readonly target: TargetName;
  readonly out: string;
  readonly context: number;
  /** Elements of all weights. */
  readonly parameters: number;
  /** Nodes of the model's graph. */
  readonly nodes: number;
  /** Kernels in kernels.metal. */
  readonly kernels: number;
  /** Most dispatches that one layer of a decode step takes. */
  readonly dispatchesPerLayer: number;
  readonly entries: Readonly<Record<EntryName, EntrySummary>>;
  readonly kvBytes: number;
  readonly weightBytes: number;
  /** Device memory of a session: weights, caches, pool, input and output. */
  readonly totalBytes: number;
  readonly ms: number;
}

/** A compiled model in memory: what a build folder holds. */
export interface Compiled {
  readonly plan: Plan;
  readonly kernels: string;
  readonly entries: readonly Entry[];
  /** The tensors of weights.bin. */
  readonly weights: readonly Placed[];
}

/** Compiles a model into a build folder. Returns undefined when `stopAfter` ends it early. Throws UserError. */
export async function compile(options: CompileOptions): Promise<CompileSummary | undefined> {
  const started = performance.now();
  if (options.stopAfter !== undefined) checkStage(options.stopAfter);
  const target = chooseTarget(options.target ?? 'auto');
  const model = typeof options.model === 'string' ? loadModel(options.model) : options.model;
  const checkpoint = options.weights === undefined ? undefined : openCheckpoint(options.weights);
  const built = buildModel(model, checkpoint);
  if (checkpoint) checkWeights(built.graph, checkpoint);
  const context = options.context ?? built.context;
  checkCount('context', context);
  checkCount('chunk', options.chunk ?? 1);
  const compiled = compileGraph(built.graph, { ...options, target, context, checkpoint });
  if (!compiled) return undefined;
  const out = path.resolve(options.out ?? path.join('build', model.name));
  await writeBuild(out, compiled, checkpoint, options.onProgress);
  return summarise(built.graph, compiled, out, performance.now() - started);
}

function chooseTarget(name: string): Target {
  // The embedded CPU device is the only one there is so far.
  const chosen = name === 'auto' ? 'cpu' : name;
  if (Object.hasOwn(targets, chosen)) return targets[chosen as TargetName];
  throw new UserError(`there is no target '${name}'`, {
    notes: [`targets: auto, ${Object.keys(targets).join(', ')}`],
  });
}

function checkCount(what: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new UserError(`${what} must be a whole number of tokens, at least 1, not ${value}`);
  }
}

const weightDtypes: ReadonlyMap<string, DType> = new Map([
  ['F32', 'f32'],
  ['F16', 'f16'],
  ['BF16', 'bf16'],
]);

function buildModel(model: Model, checkpoint: Checkpoint | undefined): ReturnType<Model['build']> {
  try {
    return model.build(checkpoint?.config ?? {}, (name) =>
      weightDtypes.get(checkpoint?.tensors.get(name)?.dtype ?? ''),
    );
  } catch (error) {
    if (!(error instanceof z.ZodError)) throw error;
    const where = checkpoint
      ? path.join(checkpoint.dir, 'config.json')
      : `the defaults of model ${model.name}`;
    throw new UserError(`${where} does not fit model ${model.name}`, {
      notes: error.issues.map((issue) => `${issue.path.join('.') || 'config'}: ${issue.message}`),
    });
  }
}

/** Every weight of the graph must be in the checkpoint, of the same shape and an element type that kernels read. */
function checkWeights(graph: Graph, checkpoint: Checkpoint): void {
  for (const node of graph.nodes) {
    if (!isOp(node, 'weight')) continue;
    const { name, shape } = node.attrs;
    const detail = { span: node.origin.span, within: node.origin.scope || undefined };
    const stored = checkpoint.tensors.get(name);
    if (!stored) {
      const near = nearest(name, checkpoint.tensors.keys());
      throw new UserError(`weight '${name}' is not in the checkpoint ${checkpoint.dir}`, {
        ...detail,
        notes: [
          near
            ? `did you mean '${near}'?`
            : `the checkpoint has ${checkpoint.tensors.size} tensors, none of a name like it`,
        ],
      });
    }
    if (stored.shape.join() !== shape.join()) {
      throw new UserError(
        `weight '${name}' is [${stored.shape.join(', ')}] in the checkpoint; the model expects ${formatType(node.type)}`,
        { ...detail, notes: [`the tensor is in ${stored.file}`] },
      );
    }
    if (!weightDtypes.has(stored.dtype)) {
      throw new UserError(`weight '${name}' is stored as ${stored.dtype}; weights can be F32, F16 or BF16`, {
        ...detail,
        notes: [`the tensor is in ${stored.file}`],
      });
    }
  }
}

export interface GraphOptions {
  readonly target: Target;
  readonly context: number;
  readonly chunk?: number | undefined;
  readonly checkpoint?: Checkpoint | undefined;
  readonly onStage?: ((stage: string, text: () => string) => void) | undefined;
  readonly stopAfter?: string | undefined;
}

/** Runs the passes and the code generator on a graph; undefined when `stopAfter` ends it early. */
export function compileGraph(graph: Graph, options: GraphOptions): Compiled | undefined {
  const { target, context, checkpoint } = options;
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
  return { plan, kernels: emitted.text, entries, weights: memory.weights };
}

/** Writes the build folder. Files appear under their names only once all are complete; the plan last. */
async function writeBuild(
  out: string,
  compiled: Compiled,
  checkpoint: Checkpoint | undefined,
  onProgress: CompileOptions['onProgress'],
): Promise<void> {
  const files = new Map<string, (file: string) => void | Promise<void>>();
  if (checkpoint) {
    const layout = compiled.weights.map((placed) => packed(placed, checkpoint, compiled.plan.context));
    files.set(buildFiles.weights, (file) =>
      packWeights(file, layout, compiled.plan.arenas.weights.bytes, onProgress),
    );
    for (const source of checkpoint.tokenizerFiles) {
      files.set(path.basename(source), (file) => copyFileSync(source, file));
    }
  }
  files.set(buildFiles.kernels, (file) => writeFileSync(file, compiled.kernels));
  files.set(buildFiles.plan, (file) => writeFileSync(file, `${JSON.stringify(compiled.plan, null, 1)}\n`));
  const temporary = (name: string): string => path.join(out, `.${name}.${process.pid}.new`);
  try {
    mkdirSync(out, { recursive: true });
    for (const [name, write] of files) await write(temporary(name));
    rmSync(path.join(out, buildFiles.plan), { force: true });
    if (!checkpoint) rmSync(path.join(out, buildFiles.weights), { force: true });
    for (const name of files.keys()) renameSync(temporary(name), path.join(out, name));
  } catch (error) {
    for (const name of files.keys()) if (existsSync(temporary(name))) rmSync(temporary(name));
    if (error instanceof Error && 'syscall' in error)
      throw new UserError(`cannot write the build folder ${out}: ${error.message}`);
    throw error;
  }
}

function packed({ node, name, region }: Placed, checkpoint: Checkpoint, context: number): PackedWeight {
  const { offset, bytes } = region;
  const stored = checkpoint.tensors.get(name);
  if (isOp(node, 'weight') && stored) return { offset, bytes, source: stored };
  return { offset, bytes, source: { compute: () => computedLeaf(node, { C: context }) } };
}

/** The bytes of a leaf whose value is known at compile time. */
export function computedLeaf(node: Placed['node'], dims: DimBindings): Uint8Array {
  return new Uint8Array(Float32Array.from(evaluateNode(node, [], dims).data).buffer);
}

function summarise(graph: Graph, { plan, entries }: Compiled, out: string, ms: number): CompileSummary {
  const weights = graph.nodes.filter((node) => isOp(node, 'weight'));
  const parameters = weights.map((node) => elementCount(node.attrs.shape));
  const decode = entries.find((entry) => entry.name === 'decode');
  const perLayer = new Map<number, number>();
  for (const kernel of decode?.kernels ?? []) {
    const { layer } = kernel.result.origin;
    if (layer !== undefined) perLayer.set(layer, (perLayer.get(layer) ?? 0) + 1);
  }
  const entrySummary = (name: EntryName): EntrySummary => ({
    dispatches: plan.entries[name].dispatches.length,
    barriers: plan.entries[name].dispatches.filter((dispatch) => dispatch.barrier).length,
    pool: plan.entries[name].pool,
  });
  const { arenas } = plan;
  return {
    model: plan.model.name,
    target: plan.target,
    out,
    context: plan.context,
    parameters: parameters.reduce((a, b) => a + b, 0),
    nodes: graph.nodes.length,
    kernels: plan.kernels.length,
    dispatchesPerLayer: Math.max(0, ...perLayer.values()),
    entries: {
      decode: entrySummary('decode'),
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
