import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Placed } from './codegen/plan.js';
import { UserError } from './diagnostic.js';
import { ioReason, shown } from './input-file.js';
import { isOp } from './ir/graph.js';
import { evaluateNode } from './ir/interpret.js';
import { isPackedName } from './ir/packed.js';
import type { Method } from './ir/policy.js';
import { bindShape, elementTypeOf, type DimBindings } from './ir/type.js';
import { matrixShape } from './passes/size.js';
import type { Target } from './passes/target.js';
import { buildFiles, type Plan } from './runtime/plan.js';
import type { Checkpoint } from './weights/checkpoint.js';
import { weightDtype } from './weights/fit.js';
import { packWeights, type PackedWeight } from './weights/pack.js';
import { convertMatrix, packMatrix } from './weights/pack-matrix.js';
import { readTransposed } from './weights/read.js';

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
  const present = readdirSync(out);
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

/** Writes the build folder. Files appear under their names only once all are complete; the plan last. */
export async function writeBuild(
  out: string,
  build: Build,
  checkpoint: Checkpoint | undefined,
  onProgress: ((bytesDone: number, bytesTotal: number) => void) | undefined,
): Promise<void> {
  const files = new Map<string, (file: string) => void | Promise<void>>();
  if (checkpoint) {
    const layout = build.weights.map((placed) => packed(placed, checkpoint, build));
    files.set(buildFiles.weights, (file) =>
      packWeights(file, layout, build.plan.arenas.weights.bytes, onProgress),
    );
    for (const { name, read } of checkpoint.tokenizerFiles) {
      files.set(name, (file) => writeFileSync(file, read()));
    }
  }
  files.set(buildFiles.kernels, (file) => writeFileSync(file, build.kernels));
  files.set(buildFiles.plan, (file) => writeFileSync(file, `${JSON.stringify(build.plan, null, 1)}\n`));
  const temporary = (name: string): string => path.join(out, `.${name}.${process.pid}.new`);
  const cleanUp = (): void => removeTemporaries(out, process.pid);
  // A build that is interrupted would leave gigabytes under a hidden name.
  process.once('exit', cleanUp);
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
    process.off('exit', cleanUp);
  }
}

function removeTemporaries(out: string, pid: number): void {
  if (!existsSync(out) || !statSync(out).isDirectory()) return;
  for (const name of readdirSync(out)) {
    if (name.startsWith('.') && name.includes(`.${pid}.new`)) rmSync(path.join(out, name), { force: true });
  }
}

function packed({ node, region }: Placed, checkpoint: Checkpoint, { plan, target }: Build): PackedWeight {
  const { offset, bytes } = region;
  const stored = isOp(node, 'weight') ? checkpoint.tensors.get(node.attrs.name) : undefined;
  const transposed = isOp(node, 'weight') && node.attrs.transposed === true;
  const { dtype } = node.type;
  if (stored && isPackedName(dtype)) {
    const layout = { ...target, shape: matrixShape(bindShape(node.type.shape, {})), transposed };
    return { offset, bytes, source: { compute: () => packMatrix(stored, dtype, layout) } };
  }
  if (stored && dtype !== weightDtype(stored))
    return {
      offset,
      bytes,
      source: { compute: () => convertMatrix(stored, elementTypeOf(node.type), transposed) },
    };
  if (stored && transposed) return { offset, bytes, source: { compute: () => readTransposed(stored) } };
  if (stored) return { offset, bytes, source: stored };
  return { offset, bytes, source: { compute: () => computedLeaf(node, { C: plan.context }) } };
}

/** The bytes of a leaf whose value is known at compile time. */
function computedLeaf(node: Placed['node'], dims: DimBindings): Uint8Array {
  return new Uint8Array(Float32Array.from(evaluateNode(node, [], dims).data).buffer);
}
