import { openSync, readSync, closeSync } from 'node:fs';
import path from 'node:path';
import { embed, linear, model, tokens, weight, z } from '#dist/index.js';
import { compile } from '#dist/compiler.js';
import type { Rule } from '#dist/ir/policy.js';
import { loadAddon } from '#dist/runtime/addon.js';
import type { NativeDispatch, NativeProgram, ProgramSpec } from '#dist/runtime/native.js';
import { buildFiles, readPlan } from '#dist/runtime/plan.js';
import { programSpec } from '#dist/runtime/session.js';

/** The product of one vector with a matrix of a build, by itself. */

/** The arenas of the programs here: copies of what the kernel reads of the weights, the vector, the result. */
const arenas = { weights: 0, x: 1, y: 2 } as const;

const round = (bytes: number): number => Math.ceil(bytes / 256) * 256;

export interface Product {
  /** Bytes that a call reads and writes. */
  readonly bytes: number;
  /** A program with an entry of one call, and one of `calls`, each of another copy of the weights in turn. */
  readonly program: (copies: number, calls: number) => Promise<NativeProgram>;
  /** Copies the weights to the program, as the i-th. */
  readonly fill: (program: NativeProgram, copy: number) => void;
  readonly giveVector: (program: NativeProgram) => void;
  readonly takeResult: (program: NativeProgram) => Float32Array;
}

/** Compiles the product with a matrix of that size, of random values. */
export async function product(
  folder: string,
  target: 'cpu' | 'cuda' | 'metal',
  [rows, length]: readonly [number, number],
  matrix: { readonly format: Rule['format']; readonly sparsify?: string },
  device: string,
): Promise<Product> {
  const graph = model({ name: 'spmv', config: z.looseObject({}), context: () => 1 }, () => {
    const x = linear(embed(tokens(), weight('table', [rows, 32])), weight('widen', [length, 32]));
    return linear(x, weight('matrix', [rows, length]));
  });
  const out = path.join(folder, `${matrix.format}-${matrix.sparsify ?? 'dense'}`.replaceAll(':', '-'));
  await compile({
    model: graph,
    target,
    weights: 'random:1',
    out,
    quantize: [{ match: 'matrix', format: matrix.format, method: 'nearest' }],
    ...(matrix.sparsify === undefined ? {} : { sparsify: `matrix=${matrix.sparsify}` }),
  });
  const plan = readPlan(out);
  const isProduct = new RegExp(`^mat(vec|mul).*_${rows}x${length}`);
  const found = plan.entries.decode.dispatches.filter(({ kernel }) =>
    isProduct.test(plan.kernels[kernel]?.name ?? ''),
  );
  const [dispatch] = found;
  const kernel = dispatch && plan.kernels[dispatch.kernel];
  if (!dispatch || !kernel || found.length > 1) throw new Error('the build has no product of its own');
  const buffers = kernel.arguments.filter((argument) => argument.kind === 'buffer');
  // What the kernel reads of the weights, one after the other.
  let copyBytes = 0;
  const parts: { readonly from: number; readonly to: number; readonly bytes: number }[] = [];
  const bindings = dispatch.bindings.map(({ arena, offset, bytes }, i) => {
    if (arena === 'weights') {
      parts.push({ from: offset, to: copyBytes, bytes });
      copyBytes += round(bytes);
      return { arena: arenas.weights, offset: copyBytes - round(bytes), bytes };
    }
    return { arena: buffers[i]?.access === 'write' ? arenas.y : arenas.x, offset: 0, bytes };
  });
  const spec = programSpec(out, plan);
  const call = (copy: number): NativeDispatch => ({
    kernel: 0,
    grid: dispatch.grid,
    barrier: true,
    bindings: bindings.map((binding) =>
      binding.arena === arenas.weights ? { ...binding, offset: binding.offset + copy * copyBytes } : binding,
    ),
  });
  const own = spec.kernels[dispatch.kernel];
  if (!own) throw new Error('the program has no such kernel');
  const vector = Float32Array.from({ length }, (_, i) => (i % 17) / 17 - 0.5);
  const file = openSync(path.join(out, buildFiles.weights), 'r');
  const stored = parts.map(({ from, to, bytes }) => {
    const data = new Uint8Array(bytes);
    if (readSync(file, data, 0, bytes, from) !== bytes) throw new Error('the weights end early');
    return { to, data };
  });
  closeSync(file);
  return {
    bytes: parts.reduce((sum, { bytes }) => sum + bytes, 0) + 4 * (rows + length),
    program: (copies, calls) => {
      const all: ProgramSpec = {
        ...spec,
        kernels: [own],
        arenas: [
          { name: 'weights', bytes: copies * copyBytes },
          { name: 'x', bytes: 4 * length },
          { name: 'y', bytes: 4 * rows },
        ],
        entries: [
          { name: 'one', dispatches: [call(0)] },
          { name: 'many', dispatches: Array.from({ length: calls }, (_, i) => call(i % copies)) },
        ],
      };
      return loadAddon().createProgram(device, all);
    },
    fill: (program, copy) => {
      for (const { to, data } of stored) program.write(arenas.weights, copy * copyBytes + to, data);
    },
    giveVector: (program) => {
      program.write(arenas.x, 0, new Uint8Array(vector.buffer));
    },
    takeResult: (program) => {
      const y = new Float32Array(rows);
      program.read(arenas.y, 0, new Uint8Array(y.buffer));
      return y;
    },
  };
}
