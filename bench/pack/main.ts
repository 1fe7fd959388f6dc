/**
 * Speed and memory of packing: the full Phi-4 shape as q4g32 out of nothing, and a sharded bf16 checkpoint of over 4 GB
 * with scale search. Each is packed in one go, then killed half-way and continued, and the results compared.
 * `npm run bench:pack -- [--folder DIR]` takes about 15 GB of disk for a while.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  createReadStream,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { isOp } from '#dist/ir/graph.js';
import { loadModel } from '#dist/ir/load.js';
import { packedFormats, placePlanes } from '#dist/ir/packed.js';
import type { PackStats } from '#dist/runtime/native.js';
import { openCheckpoint } from '#dist/weights/checkpoint.js';
import { packWeights, type PackedWeight, type WeightSource } from '#dist/weights/pack.js';
import { randomLike } from '#dist/weights/random.js';

const alignment = 256;

/** Weights one after the other: matrices as q4g32, everything else as f32. */
class Layout {
  readonly weights: PackedWeight[] = [];
  total = 0;

  add(shape: readonly number[], source: WeightSource): void {
    const offset = this.total;
    const weight = shape.length === 2 ? matrix(offset, shape, source) : vector(offset, shape, source);
    this.weights.push(weight);
    this.total = Math.ceil((offset + weight.bytes) / alignment) * alignment;
  }
}

function matrix(
  offset: number,
  [rows = 1, columns = 1]: readonly number[],
  source: WeightSource,
): PackedWeight {
  const placed = placePlanes(packedFormats.q4g32, [rows, columns], { tileRows: 4, alignment });
  return { offset, ...placed, shape: [rows, columns], format: 'q4g32', tileRows: 4, source };
}

function vector(offset: number, [length = 1]: readonly number[], source: WeightSource): PackedWeight {
  return { offset, bytes: 4 * length, shape: [1, length], format: 'f32', source };
}

/** Phi-4 from `random:1`. */
function phi4(): Layout {
  const layout = new Layout();
  for (const node of loadModel('models/phi4.graph.ts').build({}).graph.nodes) {
    if (!isOp(node, 'weight')) continue;
    const { name, shape } = node.attrs;
    layout.add(shape, { random: randomLike(name, shape, 1) });
  }
  return layout;
}

const shards = 4;
const matrices = 8;
const side = 8192;

/** Writes a sharded checkpoint of random bf16 matrices. */
async function writeCheckpoint(folder: string): Promise<void> {
  const bytes = side * side * 2;
  const map: Record<string, string> = {};
  for (let shard = 0; shard < shards; shard++) {
    const file = `model-${shard}.safetensors`;
    const names = Array.from({ length: matrices }, (_, i) => `layers.${shard * matrices + i}.weight`);
    const entries = names.map((name, i): [string, unknown] => [
      name,
      { dtype: 'BF16', shape: [side, side], data_offsets: [i * bytes, (i + 1) * bytes] },
    ]);
    const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
    const start = 8 + header.length;
    const weights = names.map((name, i): PackedWeight => {
      map[name] = file;
      const source = { random: randomLike(name, [side, side], 1) };
      return { offset: start + i * bytes, bytes, shape: [side, side], format: 'bf16', source };
    });
    await packWeights(path.join(folder, file), weights, start + matrices * bytes);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    const descriptor = openSync(path.join(folder, file), 'r+');
    writeSync(descriptor, Buffer.concat([length, header]), 0, start, 0);
    closeSync(descriptor);
  }
  writeFileSync(path.join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: map }));
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify({ architectures: ['None'] }));
}

function checkpointLayout(folder: string): Layout {
  const layout = new Layout();
  for (const tensor of openCheckpoint(folder).tensors.values()) layout.add(tensor.shape, { tensor });
  return layout;
}

interface Outcome {
  readonly stats: PackStats;
  readonly peakBytes: number;
  /** Of all threads; other work on the machine changes it little. */
  readonly cpuSeconds: number;
}

/** Packs in a process of its own, whose peak memory is the packing's; undefined when it was killed at `until`. */
async function packElsewhere(
  job: string,
  folder: string,
  output: string,
  until = Infinity,
): Promise<Outcome | undefined> {
  const script = fileURLToPath(import.meta.url);
  const args = [script, '--job', job, '--folder', folder, '--output', output];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let outcome: Outcome | undefined;
  let text = '';
  for await (const chunk of child.stdout) {
    text += String(chunk);
    const lines = text.split('\n');
    text = lines.pop() ?? '';
    for (const line of lines) {
      const event = JSON.parse(line) as Outcome | { readonly share: number };
      if ('stats' in event) outcome = event;
      else if (event.share >= until) child.kill('SIGKILL');
    }
  }
  return outcome;
}

async function work(job: string, folder: string, output: string): Promise<void> {
  const { weights, total } = job === 'phi4' ? phi4() : checkpointLayout(folder);
  const print = (event: unknown): void => void process.stdout.write(`${JSON.stringify(event)}\n`);
  const stats = await packWeights(output, weights, total, (done, of) => {
    print({ share: done / of });
  });
  const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
  print({ stats, peakBytes: maxRSS * 1024, cpuSeconds: (userCPUTime + systemCPUTime) / 1e6 });
}

async function hashOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file, { highWaterMark: 2 ** 22 }), hash);
  return hash.digest('hex');
}

const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;

function report(what: string, { stats, peakBytes, cpuSeconds }: Outcome): void {
  const { bytesRead, bytesWritten, resumedBytes, seconds, threads } = stats;
  const rate = (bytes: number): string => `${megabytes(bytes / seconds)}/s`;
  const parts = [
    ...(resumedBytes > 0 ? [`resumed at ${megabytes(resumedBytes)}`] : []),
    ...(bytesRead > 0 ? [`read ${megabytes(bytesRead)} at ${rate(bytesRead)}`] : []),
    `wrote ${megabytes(bytesWritten)} at ${rate(bytesWritten)}`,
    `${seconds.toFixed(1)} s with ${threads} threads, ${cpuSeconds.toFixed(1)} s of processors`,
    `peak memory ${megabytes(peakBytes)}`,
  ];
  process.stdout.write(`${what}: ${parts.join(', ')}\n`);
}

async function bench(parent: string): Promise<void> {
  const folder = mkdtempSync(path.join(parent, 'upgc-bench-'));
  const output = path.join(folder, 'weights.bin');
  try {
    await writeCheckpoint(folder);
    for (const job of ['checkpoint', 'phi4']) {
      const whole = await packElsewhere(job, folder, output);
      if (!whole) throw new Error(`${job} was not packed`);
      report(job, whole);
      const expected = await hashOf(output);
      rmSync(output);
      if (await packElsewhere(job, folder, output, 0.5)) throw new Error(`${job} ended before it was killed`);
      const resumed = await packElsewhere(job, folder, output);
      if (!resumed) throw new Error(`${job} was not continued`);
      report(`${job}, killed and continued`, resumed);
      if ((await hashOf(output)) !== expected) throw new Error(`${job}: the continued file differs`);
      process.stdout.write(`${job}: both files are the same, sha256 ${expected.slice(0, 16)}…\n`);
      rmSync(output);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const { values } = parseArgs({
  options: { folder: { type: 'string' }, job: { type: 'string' }, output: { type: 'string' } },
});
const { folder = tmpdir(), job, output } = values;
if (job !== undefined && output !== undefined) await work(job, folder, output);
else await bench(folder);
