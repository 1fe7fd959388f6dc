import { createHash, type Hash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import { getSystemErrorMap, getSystemErrorName } from 'node:util';
import { CompilerBug, UserError } from '../diagnostic.js';
import { ioReason, shown } from '../input-file.js';
import type { Pruned } from '../ir/ops/leaf.js';
import type { PackedName, PlacedPlane } from '../ir/packed.js';
import { loadAddon } from '../runtime/addon.js';
import type {
  NativeErrorCode,
  NativePackSource,
  NativePackWeight,
  PackIoError,
  PackSpec,
  PackStats,
} from '../runtime/native.js';
import { blockFormats } from './blocks.js';
import type { TensorEntry } from './stored.js';

/** Where the values of a weight come from. */
export type WeightSource =
  /** `transposed`: the checkpoint holds [columns, rows]. */
  | { readonly tensor: TensorEntry; readonly transposed?: boolean }
  /** Called once, before anything is written. */
  | { readonly compute: () => Float32Array }
  /** About normal; in packed formats with mean 0. */
  | { readonly random: { readonly seed: number; readonly mean: number; readonly deviation: number } };

/** How much the square of an error counts in each column, by weight. */
export type Importance = ReadonlyMap<string, Float32Array>;

/** One weight of weights.bin: `bytes` bytes at byte `offset`. */
export interface PackedWeight {
  readonly offset: number;
  readonly bytes: number;
  /** [rows, columns]; a tensor of another rank is a single row. */
  readonly shape: readonly [number, number];
  readonly format: 'f32' | 'f16' | 'bf16' | 'u16' | PackedName;
  /** Of what it is a part, where not all of the source is kept: `shape` is then that of the part. */
  readonly pruned?: Pruned;
  /** Where the planes of a packed format lie, and how many of its rows are interleaved: see `placePlanes`. */
  readonly planes?: readonly PlacedPlane[];
  readonly tileRows?: number;
  readonly source: WeightSource;
  /** How integers are chosen for floats: for the extremes of a group, or (the default) for the least squared error. */
  readonly method?: 'nearest' | 'search';
  /** How much the square of an error counts in each column of the source; by default all alike. */
  readonly importance?: Float32Array;
}

export interface PackOptions {
  /** What the file is called until it is complete; by default its name with `.` before and `.partial` behind. */
  readonly partial?: string;
  /** By default as many as there are processors. */
  readonly threads?: number;
  /** Ends the packing early, so that it can be continued. */
  readonly signal?: AbortSignal;
}

/**
 * Writes weights.bin: `total` bytes, the weights of `layout` at their offsets, zeros between. The file appears whole
 * or not at all. When the process dies, the next one that packs the same from unchanged files goes on where it was.
 * @param onProgress bytes written so far and in all: once at the beginning (more than 0 if a packing is continued), then
 *   at most ten times a second, and at the end
 * @throws {UserError} when a checkpoint file ends early or cannot be read, or the output cannot be written
 */
export async function packWeights(
  file: string,
  layout: readonly PackedWeight[],
  total: number,
  onProgress?: (bytesDone: number, bytesTotal: number) => void,
  options: PackOptions = {},
): Promise<PackStats> {
  const partial = options.partial ?? path.join(path.dirname(file), `.${path.basename(file)}.partial`);
  if (existsSync(file) && statSync(file).isDirectory())
    throw new UserError(`cannot write ${shown(file)}: it is a folder`);
  const spec = packSpec({ ...options, file, partial, total }, layout);
  options.signal?.throwIfAborted();

  let failure: { readonly error: unknown } | undefined;
  let last = { done: -1, total: 0 };
  const report = (done: number, of: number): void => {
    if (failure || (done === last.done && of === last.total)) return;
    last = { done, total: of };
    try {
      onProgress?.(done, of);
    } catch (error) {
      failure = { error };
      packing.abort();
    }
  };
  const packing = started(() => loadAddon().packWeights(spec, report));
  const abort = (): void => packing.abort();
  options.signal?.addEventListener('abort', abort);
  let stats: PackStats;
  try {
    stats = await packing.done;
  } catch (error) {
    if (failure) throw failure.error;
    options.signal?.throwIfAborted();
    throw explained(error, spec);
  } finally {
    options.signal?.removeEventListener('abort', abort);
  }
  report(stats.resumedBytes + stats.bytesWritten, stats.resumedBytes + stats.bytesWritten);
  if (failure) throw failure.error;
  return stats;
}

/** What `start` gives; what the addon throws rightaway is about the spec, which is ours. */
function started<T>(start: () => T): T {
  try {
    return start();
  } catch (error) {
    if (hasCode(error, 'UPGC_BAD_PLAN')) throw new CompilerBug(`weights cannot be packed: ${error.message}`);
    throw error;
  }
}

function packSpec(
  { file, partial, total, threads }: PackOptions & { file: string; partial: string; total: number },
  layout: readonly PackedWeight[],
): PackSpec {
  const files = new Map<string, number>();
  for (const { source } of layout)
    if ('tensor' in source && !files.has(source.tensor.file)) files.set(source.tensor.file, files.size);
  const weights = layout.map((weight, index) => nativeWeight(weight, index, files));
  return {
    file,
    partial,
    bytes: total,
    fingerprint: fingerprintOf([...files.keys()], weights, total),
    files: [...files.keys()],
    weights,
    ...(threads === undefined ? {} : { threads }),
  };
}

function nativeWeight(
  weight: PackedWeight,
  index: number,
  files: ReadonlyMap<string, number>,
): NativePackWeight {
  const {
    offset,
    bytes,
    shape,
    format,
    planes,
    tileRows = 1,
    method = 'search',
    importance,
    pruned,
  } = weight;
  const [rows, columns] = shape;
  const end = planes ? Math.max(0, ...planes.map((plane) => plane.offset + plane.size)) : plainBytes(weight);
  if (end !== bytes)
    throw new CompilerBug(`weight ${index} has ${end} bytes as ${format}, planned were ${bytes}`);
  return {
    name: 'tensor' in weight.source ? weight.source.tensor.name : `#${index}`,
    rows,
    columns,
    source: nativeSource(weight, files),
    format,
    tileRows,
    offsets: planes ? planes.map((plane) => offset + plane.offset) : [offset],
    method,
    ...(importance ? { importance } : {}),
    ...(pruned ? { pruning: pruningOf(pruned) } : {}),
  };
}

const pruningOf = ({ of: [rows, columns], block: [blockRows, blockColumns], part }: Pruned) => ({
  rows,
  columns,
  blockRows,
  blockColumns,
  indices: part === 'columns',
});

const plainBytes = ({ shape: [rows, columns], format }: PackedWeight): number =>
  rows * columns * (format === 'f32' ? 4 : 2);

function nativeSource(
  { source, shape, pruned }: PackedWeight,
  files: ReadonlyMap<string, number>,
): NativePackSource {
  const [rows, columns] = pruned?.of ?? shape;
  if ('random' in source) return source;
  if ('compute' in source) {
    const values = source.compute();
    if (values.length !== rows * columns)
      throw new CompilerBug(
        `a computed weight has ${values.length} elements, planned were ${rows * columns}`,
      );
    return { data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength), dtype: 'F32' };
  }
  const { name, file, offset, bytes, dtype, headRows } = source.tensor;
  const block = blockFormats.get(dtype) ?? { elements: 1, bytes: dtype === 'F32' ? 4 : 2 };
  if ((rows * columns * block.bytes) / block.elements !== bytes)
    throw new CompilerBug(`tensor ${name} has ${bytes} bytes, planned were ${rows} x ${columns} elements`);
  return {
    file: files.get(file) ?? NaN,
    offset,
    dtype,
    ...(headRows === undefined ? {} : { headRows }),
    ...(source.transposed ? { transposed: true } : {}),
  };
}

/** Changes when what the addon makes of a spec changes: a file that an older version began is of no use then. */
const packingVersion = 1;

/** A digest of all that determines the file's contents; of source files, their sizes and times. */
function fingerprintOf(
  files: readonly string[],
  weights: readonly NativePackWeight[],
  total: number,
): string {
  const hash = createHash('sha256');
  const facts = files.map((file) => {
    const { size, mtimeNs } = statusOf(file);
    return [path.resolve(file), String(size), String(mtimeNs)];
  });
  hash.update(JSON.stringify([packingVersion, total, facts]));
  for (const weight of weights) updateWith(hash, weight);
  return hash.digest('hex');
}

function updateWith(hash: Hash, weight: NativePackWeight): void {
  const { source, importance } = weight;
  const data = 'data' in source ? source.data : undefined;
  const rest = { ...weight, importance: importance?.length, source: data ? data.length : source };
  hash.update(JSON.stringify(rest));
  if (data) hash.update(data);
  if (importance) hash.update(importance);
}

function statusOf(file: string): { readonly size: bigint; readonly mtimeNs: bigint } {
  try {
    return statSync(file, { bigint: true });
  } catch (error) {
    throw new UserError(`cannot read ${shown(file)}: ${ioReason(error)}`);
  }
}

function hasCode(error: unknown, code: NativeErrorCode): error is Error {
  return error instanceof Error && 'code' in error && error.code === code;
}

/** What the addon rejects with, as an error for the user. */
function explained(error: unknown, { file, partial }: PackSpec): unknown {
  if (hasCode(error, 'UPGC_BUSY'))
    return new UserError(`another process is writing ${shown(path.dirname(file))}`, {
      notes: ['wait for it to end, or give another --out'],
    });
  if (hasCode(error, 'UPGC_NOT_FINITE')) return new UserError(error.message);
  if (!hasCode(error, 'UPGC_IO')) return error;
  const { path: where, writing, errno, position, missing, weight } = error as Error & PackIoError;
  const reason = ioReason(systemError(errno));
  if (writing) {
    const kept = existsSync(partial) ? [`what is written is kept: the next run goes on from there`] : [];
    return new UserError(`cannot write ${shown(file)}: ${reason}`, { notes: kept });
  }
  const tensor = weight === '' ? '' : `tensor ${JSON.stringify(weight)}: `;
  if (errno !== 0) return new UserError(`cannot read ${tensor}${shown(where)}: ${reason}`);
  return new UserError(
    `cannot read ${tensor}${shown(where)} ends at byte ${position}, expected ${missing} more`,
    { notes: ['the file changed while it was in use, or its download is incomplete: download it again'] },
  );
}

function systemError(errno: number): Error {
  if (errno === 0) return new Error('');
  const message = getSystemErrorMap().get(-errno)?.[1] ?? `error ${errno}`;
  return Object.assign(new Error(message), { code: getSystemErrorName(-errno) });
}
