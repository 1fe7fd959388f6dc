import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Placed } from './codegen/plan.js';
import { CompilerBug, UserError } from './diagnostic.js';
import { ioReason, shown } from './input-file.js';
import { isOp } from './ir/graph.js';
import { evaluateNode } from './ir/interpret.js';
import { isPackedName, packedFormats, placePlanes } from './ir/packed.js';
import type { Method } from './ir/policy.js';
import { sourceName } from './weights/sparsify.js';
import { bindShape, elementCount, type DimBindings } from './ir/type.js';
import type { Target } from './passes/target.js';
import { buildFiles, type Plan } from './runtime/plan.js';
import type { Checkpoint } from './weights/checkpoint.js';
import { packWeights, type Importance, type PackedWeight, type WeightSource } from './weights/pack.js';
import { randomLike, type RandomSeed } from './weights/random.js';

/** Every file a build may have; those a new build lacks are removed with the old one. */
const allFiles: readonly string[] = [...Object.values(buildFiles), 'tokenizer.json', 'tokenizer_config.json'];

/** What a build folder holds. */
export interface Build {
  readonly plan: Plan;
  /** The text of kernels.metal. */
  readonly kernels: string;
  /** The tensors of weights.bin. */
  readonly weights: readonly Placed[];
  readonly target: Target;
  /** How integers are chosen, of weights that are quantised here. */
  readonly methods: ReadonlyMap<string, Method>;
  /** Of each of their columns, where a text has told. */
  readonly importance: Importance;
}

/**
 * Refuses to write where something would be lost: into a folder that holds anything but a build, or over packed
 * weights when the new build has none.
 */
export function checkBuildFolder(out: string, packed: boolean): void {
  if (!existsSync(out)) return;
  if (!statSync(out).isDirectory()) {
    throw new UserError(`${shown(out)} is a file: a build needs a folder`, { notes: ['give another --out'] });
  }
  // What an interrupted build left is no obstacle to the next.
  const present = readdirSync(out).filter((name) => name !== partialWeights);
  if (present.length > 0 && !present.includes(buildFiles.plan)) {
    throw new UserError(`${shown(out)} is not empty, and not a build folder`, {
      notes: ['give another --out'],
    });
  }
  if (!packed && present.includes(buildFiles.weights)) {
    throw new UserError(`${shown(out)} holds a build with weights, which one without would remove`, {
      notes: ['give another --out, or --weights, or remove the folder'],
    });
  }
}

/** What a new weights.bin is called while it is written: an interrupted build is continued in the next. */
const partialWeights = `.${buildFiles.weights}.partial`;

/** Writes the build folder. Files appear under their names only once all are complete; the plan last. */
export async function writeBuild(
  out: string,
  build: Build,
  weights: Checkpoint | RandomSeed | undefined,
  onProgress: ((bytesDone: number, bytesTotal: number) => void) | undefined,
): Promise<void> {
  const files = new Map<string, (file: string) => unknown>();
  const interrupted = new AbortController();
  if (weights) {
    const layout = build.weights.map((placed) => packed(placed, weights, build));
    const options = { partial: path.join(out, partialWeights), signal: interrupted.signal };
    files.set(buildFiles.weights, (file) =>
      packWeights(file, layout, build.plan.arenas.weights.bytes, onProgress, options),
    );
  }
  if (weights && 'tokenizerFiles' in weights) {
    for (const { name, read } of weights.tokenizerFiles) {
      files.set(name, (file) => writeFileSync(file, read()));
    }
  }
  files.set(buildFiles.kernels, (file) => writeFileSync(file, build.kernels));
  files.set(buildFiles.plan, (file) => writeFileSync(file, `${JSON.stringify(build.plan, null, 1)}\n`));
  const temporary = (name: string): string => path.join(out, `.${name}.${process.pid}.new`);
  const cleanUp = (): void => removeTemporaries(out, process.pid);
  // A process that exits waits for the threads that pack, and would leave files under hidden names.
  const leave = (): void => {
    interrupted.abort();
    cleanUp();
  };
  process.once('exit', leave);
  try {
    mkdirSync(out, { recursive: true });
    for (const [name, write] of files) await write(temporary(name));
    rmSync(path.join(out, buildFiles.plan), { force: true });
    for (const name of allFiles) if (!files.has(name)) rmSync(path.join(out, name), { force: true });
    for (const name of files.keys()) renameSync(temporary(name), path.join(out, name));
  } catch (error) {
    if (error instanceof Error && 'syscall' in error)
      throw new UserError(`cannot write the build folder ${shown(out)}: ${ioReason(error)}`);
    throw error;
  } finally {
    cleanUp();
    process.off('exit', leave);
  }
}

function removeTemporaries(out: string, pid: number): void {
  if (!existsSync(out) || !statSync(out).isDirectory()) return;
  for (const name of readdirSync(out)) {
    if (name.startsWith('.') && name.includes(`.${pid}.new`)) rmSync(path.join(out, name), { force: true });
  }
}

function packed(
  { node, region }: Placed,
  weights: Checkpoint | RandomSeed,
  { plan, target, methods, importance }: Build,
): PackedWeight {
  const { offset, bytes } = region;
  const shape = bindShape(node.type.shape, { C: plan.context });
  const pruned = isOp(node, 'weight') ? node.attrs.pruned : undefined;
  const source = sourceOf(node, pruned?.of ?? shape, weights, plan.context);
  // Rows of heads can be those of a bias.
  const ofHeads = 'tensor' in source && source.tensor.headRows !== undefined;
  const [rows = 1, columns = 1] = shape.length === 2 || ofHeads ? shape : [1, elementCount(shape)];
  const { dtype: format } = node.type;
  if (format === 'i32') throw new CompilerBug('weights are not integers');
  const weight: PackedWeight = {
    offset,
    bytes,
    shape: [rows, columns],
    format,
    source,
    ...(pruned ? { pruned } : {}),
  };
  if (!isPackedName(format)) return weight;
  const { planes } = placePlanes(packedFormats[format], [rows, columns], target);
  const name = isOp(node, 'weight') ? node.attrs.name : '';
  const method = methods.get(name);
  const columnImportance = importance.get(name);
  return {
    ...weight,
    planes,
    tileRows: target.tileRows,
    ...(method ? { method } : {}),
    ...(columnImportance ? { importance: columnImportance } : {}),
  };
}

function sourceOf(
  node: Placed['node'],
  shape: readonly number[],
  weights: Checkpoint | RandomSeed,
  context: number,
): WeightSource {
  if (!isOp(node, 'weight')) return { compute: () => computedLeaf(node, { C: context }) };
  const { transposed = false } = node.attrs;
  const name = sourceName(node.attrs);
  if ('randomSeed' in weights && node.type.dtype === 'u16' && !node.attrs.pruned)
    throw new UserError(`weight '${name}' is of u16, and random weights are real numbers`, {
      span: node.origin.span,
      notes: ['compile with a checkpoint, or let --sparsify make sparse matrices of dense ones'],
    });
  if ('randomSeed' in weights) return { random: randomLike(name, shape, weights.randomSeed) };
  const tensor = weights.tensors.get(name);
  if (!tensor) throw new CompilerBug(`weight ${name} is not in the checkpoint`);
  return { tensor, transposed: transposed !== (tensor.columnsFirst ?? false) };
}

/** The values of a leaf that is known at compile time. */
function computedLeaf(node: Placed['node'], dims: DimBindings): Float32Array {
  return Float32Array.from(evaluateNode(node, [], dims).data);
}
