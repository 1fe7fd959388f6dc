import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll } from 'vitest';
import type {
  NativeAddon,
  NativeArgument,
  NativeErrorCode,
  NativeKernel,
  NativeProgram,
  ProgramSpec,
} from '../../src/runtime/native.js';

export const root = fileURLToPath(new URL('../../', import.meta.url));

export const addon = createRequire(import.meta.url)(
  path.join(root, 'native/build/Release/upgc.node'),
) as NativeAddon;

/** A folder that goes away with the test file. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'upgc-native-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** The value, which must be there. */
export function defined<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('expected a value, found undefined');
  return value;
}

/** `buffer` arguments 0 to n-1. */
export const buffers = (n: number): NativeArgument[] =>
  Array.from({ length: n }, (_, index) => ({ kind: 'buffer', index, bytes: 0 }));

export const position = (kind: string): NativeArgument => ({ kind, index: 0, bytes: 0 });

export const threadgroup = (index: number, bytes: number): NativeArgument => ({
  kind: 'threadgroup',
  index,
  bytes,
});

/** Threadgroups of `threads` threads along x. */
export const row = (threads: number): NativeKernel['threads'] => [threads, 1, 1];

/** A spec with nothing in it but what `parts` gives. */
export function emptySpec(cache: string, parts: Partial<ProgramSpec> = {}): ProgramSpec {
  return {
    source: '',
    sourceName: 'kernels.metal',
    simdWidth: 32,
    kernels: [],
    arenas: [],
    entries: [],
    headers: path.join(root, 'native/msl'),
    cache,
    ...parts,
  };
}

type Data = Float32Array | Uint32Array | Int32Array | Uint16Array;

const bytesOf = (data: Data): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** What one dispatch of one kernel needs. */
export interface Launch {
  readonly source: string;
  readonly kernel: NativeKernel;
  readonly grid?: readonly [number, number, number];
  readonly gridThreads?: readonly [number, number, number];
  /** One arena per buffer argument, with this content. */
  readonly data: readonly Data[];
  readonly simdWidth?: 1 | 32;
  /** Values of function constants. */
  readonly constants?: ProgramSpec['functionConstants'];
}

/** The spec of a program with one arena per buffer and the one entry `run`. */
export function launchSpec(cache: string, launch: Launch): ProgramSpec {
  const bindings = launch.data.map((data, arena) => ({ arena, offset: 0, bytes: data.byteLength }));
  return emptySpec(cache, {
    source: `#include <metal_stdlib>\nusing namespace metal;\n${launch.source}`,
    simdWidth: launch.simdWidth ?? 32,
    ...(launch.constants && { functionConstants: launch.constants }),
    kernels: [launch.kernel],
    arenas: launch.data.map((data, i) => ({ name: `buffer${i}`, bytes: data.byteLength })),
    entries: [
      {
        name: 'run',
        dispatches: [
          {
            kernel: 0,
            grid: launch.grid ?? [1, 1, 1],
            ...(launch.gridThreads ? { gridThreads: launch.gridThreads } : {}),
            bindings,
            barrier: true,
          },
        ],
      },
    ],
  });
}

export async function loadLaunch(cache: string, launch: Launch): Promise<NativeProgram> {
  const program = await addon.createProgram('cpu', launchSpec(cache, launch));
  launch.data.forEach((data, arena) => program.write(arena, 0, bytesOf(data)));
  return program;
}

/** Runs the kernel once; its results are in `launch.data` afterwards. */
export async function run(cache: string, launch: Launch): Promise<void> {
  const program = await loadLaunch(cache, launch);
  try {
    await program.submit(0);
    launch.data.forEach((data, arena) => program.read(arena, 0, bytesOf(data)));
  } finally {
    program.close();
  }
}

/** What `action` throws or rejects with: its code and message. */
export async function failure(
  action: () => unknown,
): Promise<{ code: NativeErrorCode | undefined; message: string }> {
  try {
    await action();
  } catch (error) {
    const { code, message } = error as { code?: NativeErrorCode; message: string };
    return { code, message };
  }
  throw new Error('expected a failure');
}
