/**
 * The CPU device on one thread: tokens/s of small models, kernels in Phi-4's shapes beside the same work in C++ by hand
 * (yardstick.cc), by turns in one run, and what a dispatch costs. `npm run bench:cpu -- [--json] [--simt]`
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { embed, linear, model, tokens as tokenIds, weight, z } from '#dist/index.js';
import { compile } from '#dist/compiler.js';
import { packedFormats, planesOf, type PackedName } from '#dist/ir/packed.js';
import { MetalOnCpu, type BufferValue } from '#dist/metal-cpu/index.js';
import { Session } from '#dist/runtime/index.js';
import { targets } from '#dist/passes/target.js';
import { dispatchTimes } from './dispatch.js';

const root = path.resolve(import.meta.dirname, '../../..');
const here = path.join(root, 'bench/cpu');

interface Result {
  readonly what: string;
  readonly microseconds: number;
  /** Memory that must be read and written. */
  readonly bytes?: number;
  /** The hand-written loop's time. */
  readonly yardstick?: number;
}

const { values } = parseArgs({ options: { json: { type: 'boolean' }, simt: { type: 'boolean' } } });
const lanes = values.simt === true ? 32 : 1;
const target = lanes === 1 ? 'cpu' : 'metal';
const rounds = 5;

/** Compiles the yardstick; undefined where there is no clang for it or the CPU is another one. */
function yardstick(folder: string): ((...args: (string | number)[]) => number) | undefined {
  const program = path.join(folder, 'yardstick');
  for (const clang of ['clang++', 'clang++-19', 'clang++-16']) {
    try {
      const flags = ['-std=c++17', '-O3', '-march=native', '-o', program, path.join(here, 'yardstick.cc')];
      execFileSync(clang, flags, { stdio: 'ignore' });
      return (...args) => Number(execFileSync(program, args.map(String), { encoding: 'utf8' })) / 1000;
    } catch {
      continue;
    }
  }
  return undefined;
}

const ramp = (count: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => (i % 17) / 17 - 0.5);

interface KernelBench {
  readonly kernel: string;
  readonly shape: string;
  readonly rows: number;
  readonly buffers: Readonly<Record<string, BufferValue>>;
  readonly bytes: number;
  readonly repeat: number;
  readonly yardstick?: readonly (string | number)[];
  /** Threadgroups along y and their threads, of kernels that the compiler wrote. */
  readonly groups?: number;
  readonly threads?: number;
}

function q4(rows: number, length: number): KernelBench {
  const nibbles = Uint8Array.from({ length: (rows * length) / 2 }, (_, i) => i * 37);
  const scales = new Uint16Array((rows * length) / 32).fill(0x2c00);
  return {
    kernel: 'q4_matvec',
    shape: `${rows}x${length}`,
    rows,
    buffers: { nibbles, scales, x: ramp(length), y: new Float32Array(rows), length },
    bytes: nibbles.byteLength + scales.byteLength + 4 * (rows + length),
    repeat: 20,
    yardstick: ['q4', rows, length, 20],
  };
}

function row(kernel: string, length: number, inputs: readonly string[], hasYardstick: boolean): KernelBench {
  const arrays = Object.fromEntries(inputs.map((name) => [name, ramp(length)]));
  return {
    kernel,
    shape: String(length),
    rows: 1,
    buffers: { ...arrays, y: new Float32Array(length), length },
    bytes: 4 * length * (inputs.length + 1),
    repeat: 5000,
    ...(hasYardstick ? { yardstick: [kernel, length, 5000] } : {}),
  };
}

/** The kernel that the compiler writes for a product with a packed matrix. */
function emitted(format: PackedName, rows: number, length: number): KernelBench {
  const { matvec } = targets[target];
  const planes = planesOf(packedFormats[format]).map(({ name, elements, bytes }) => {
    const data = new Uint8Array(rows * (length / elements) * bytes);
    // Halves of 1/16; integers of any kind.
    if (bytes === 2) new Uint16Array(data.buffer).fill(0x2c00);
    else data.forEach((_, i) => (data[i] = i * 37));
    return [`weight_${name}`, data] as const;
  });
  const bytes = planes.reduce((sum, [, data]) => sum + data.byteLength, 0);
  return {
    kernel: `matvec_${format}_${rows}x${length}`,
    shape: 'as emitted',
    rows,
    groups: rows / (matvec.rows * matvec.simdgroups),
    threads: matvec.simdgroups * lanes,
    buffers: { ...Object.fromEntries(planes), x: ramp(length), y: new Float32Array(rows) },
    bytes: bytes + 4 * (rows + length),
    repeat: 20,
    ...(format === 'q4g32' ? { yardstick: ['q4', rows, length, 20] } : {}),
  };
}

/** Writes the kernels of a model whose only packed matrix has that shape and format. */
async function writeProduct(
  folder: string,
  format: PackedName,
  rows: number,
  length: number,
): Promise<string> {
  const product = model({ name: 'product', config: z.looseObject({}), context: () => 1 }, () => {
    const y = linear(embed(tokenIds(), weight('table', [64, length])), weight('matrix', [rows, length]));
    return linear(y, weight('head', [64, rows]));
  });
  const out = path.join(folder, format);
  await compile({ model: product, target, quantize: [{ match: 'matrix', format }], out });
  return path.join(out, 'kernels.metal');
}

const benches = [
  q4(5120, 5120),
  q4(17920, 5120),
  row('rms_norm', 5120, ['x', 'gain'], true),
  row('softmax', 5120, ['x'], false),
];

/** The least time of a kernel and of the same work by hand, by turns. */
async function time(
  library: MetalOnCpu,
  bench: KernelBench,
  byHand: ReturnType<typeof yardstick>,
): Promise<Result> {
  let microseconds = Infinity;
  let hand = Infinity;
  const launch = {
    grid: bench.groups === undefined ? bench.rows * lanes : ([bench.threads ?? lanes, bench.groups] as const),
    threads: bench.threads ?? lanes,
    buffers: bench.buffers,
    repeat: bench.repeat,
  };
  for (let round = 0; round < rounds; round++) {
    const { seconds } = await library.run(bench.kernel, launch);
    microseconds = Math.min(microseconds, 1e6 * seconds);
    if (byHand && bench.yardstick) hand = Math.min(hand, byHand(...bench.yardstick));
  }
  return {
    what: `${bench.kernel} ${bench.shape}`.trim(),
    microseconds,
    bytes: bench.bytes,
    ...(hand < Infinity ? { yardstick: hand } : {}),
  };
}

async function kernels(byHand: ReturnType<typeof yardstick>, folder: string): Promise<Result[]> {
  const results: Result[] = [];
  const byOurselves = await MetalOnCpu.open(path.join(here, 'kernels.metal'), { simdWidth: lanes });
  for (const bench of benches) {
    results.push(await time(byOurselves, { ...bench, kernel: `${bench.kernel}_${lanes}` }, byHand));
  }
  for (const format of ['q4g32', 'q4g32b', 'q6g32', 'q8g32', 'q4k'] as const) {
    const file = await writeProduct(folder, format, 5120, 5120);
    const library = await MetalOnCpu.open(file, { simdWidth: lanes });
    results.push(await time(library, emitted(format, 5120, 5120), byHand));
  }
  return results;
}

/** Microseconds a token of greedy text, the least over the rounds. */
async function tokens(model: string, file: string, count: number, folder: string): Promise<Result> {
  const out = path.join(folder, model);
  await compile({ model: path.join(root, file), weights: path.join(root, 'examples', model), target, out });
  const session = await Session.open(out);
  try {
    let least = Infinity;
    for (let round = 0; round < 4 * rounds; round++) {
      session.reset();
      const started = performance.now();
      let made = 0;
      for await (const token of session.generate([1], { greedy: true, maxTokens: count, ignoreEos: true }))
        if (token.id >= 0) made++;
      least = Math.min(least, (performance.now() - started) / made);
    }
    return { what: `${model}, a token of ${count}`, microseconds: 1000 * least };
  } finally {
    session.close();
  }
}

function line({ what, microseconds, bytes, yardstick: hand }: Result, bandwidth: number | undefined): string {
  const parts = [what.padEnd(34), `${microseconds.toFixed(microseconds < 100 ? 2 : 0).padStart(9)} µs`];
  if (bytes === undefined) parts.push(`${(1e6 / microseconds).toFixed(0)} tokens/s`);
  else {
    const rate = bytes / microseconds / 1000;
    // What fits the cache is not read from memory.
    const share =
      bandwidth === undefined || bytes < 8e6 ? '' : ` (${((100 * rate) / bandwidth).toFixed(0)} % of a read)`;
    parts.push(`${(bytes / 1e6).toFixed(2)} MB, ${rate.toFixed(1)} GB/s${share}`);
  }
  if (hand !== undefined) parts.push(`${(microseconds / hand).toFixed(2)} x by hand (${hand.toFixed(2)} µs)`);
  return `${parts.join('  ')}\n`;
}

const folder = mkdtempSync(path.join(tmpdir(), 'upgc-bench-'));
try {
  const byHand = yardstick(folder);
  const readBytes = 256e6;
  const bandwidth = byHand && readBytes / byHand('read', readBytes, 10) / 1000;
  const results = [
    ...(await kernels(byHand, folder)),
    await tokens('stories260k', 'models/llama.graph.ts', 255, folder),
    await tokens('phi4-shakespeare', 'models/phi4.graph.ts', 255, folder),
  ];
  const dispatch = await dispatchTimes();
  if (values.json === true)
    process.stdout.write(`${JSON.stringify({ lanes, bandwidth, results, dispatch }, null, 2)}\n`);
  else {
    const read =
      bandwidth === undefined
        ? 'no yardstick on this machine'
        : `a read of memory: ${bandwidth.toFixed(1)} GB/s`;
    process.stdout.write(`simdgroups of ${lanes}, one thread; ${read}\n`);
    for (const result of results) process.stdout.write(line(result, bandwidth));
    const shared = dispatch.shared.map(([threads, time]) => `, ${time} ns shared by ${threads} OS threads`);
    process.stdout.write(`a dispatch: ${dispatch.alone} ns${shared.join('')}\n`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
