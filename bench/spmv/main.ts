/**
 * Sparse matrix times vector, 5120 x 5120, beside the dense product of the same values in the same run; and what a call
 * costs with its buffers made, filled and emptied for it, against buffers that stay.
 * `npm run bench:spmv -- [--device cpu|cuda] [--samples 40] [--size 5120] [--cold MIB] [--json FILE]`
 *
 * Weights are random, and pruned by magnitude. So that no cache holds them from call to call, calls take turns with
 * copies of them that make up `--cold` MiB together.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import type { Rule } from '#dist/ir/policy.js';
import type { NativeProgram } from '#dist/runtime/native.js';
import { product, type Product } from './product.js';

interface Measured {
  readonly format: string;
  /** `dense`, or the blocks that are kept. */
  readonly blocks: string;
  /** Of a row, the share that is kept. */
  readonly density: number;
  readonly bytes: number;
  /** Of one call, in order of size; those of a format and a kind of block were taken by turns. */
  readonly microseconds: readonly number[];
}

interface Pooling {
  readonly what: string;
  readonly mode: 'allocated' | 'copied' | 'pooled' | 'recorded';
  readonly microseconds: readonly number[];
}

const { values } = parseArgs({
  options: {
    device: { type: 'string', default: 'cpu' },
    samples: { type: 'string', default: '40' },
    size: { type: 'string', default: '5120' },
    cold: { type: 'string', default: '256' },
    json: { type: 'string' },
  },
});
const device = values.device;
const samples = Number(values.samples);
const size = Number(values.size);
const target = device === 'cuda' ? 'cuda' : device === 'cpu:simt' ? 'metal' : 'cpu';
const densities = [0.1, 0.25, 0.5, 0.75, 1];
const formats = ['f16', 'q4g32'] as const satisfies readonly Rule['format'][];
const blocks = ['1x1', '16x1', '4x8'];
/** Calls of a sample: a GPU's submission should not be most of it. */
const calls = device === 'cuda' ? 64 : 4;

const median = (sorted: readonly number[]): number => sorted[Math.floor(sorted.length / 2)] ?? NaN;
const spread = (sorted: readonly number[], digits = 0): string =>
  `[${[sorted[0] ?? NaN, median(sorted), sorted.at(-1) ?? NaN].map((x) => x.toFixed(digits)).join(' ')}]`;

/** For each of `calls`, to a tenth. */
const microsecondsSince = (started: number, calls: number): number =>
  Math.round(((performance.now() - started) * 10_000) / calls) / 10;

/** µs that each run of `action` takes for each of `per` calls, in order of size; the first two are not counted. */
async function timed(per: number, action: () => Promise<void>): Promise<number[]> {
  const times: number[] = [];
  for (let i = -2; i < samples; i++) {
    const started = performance.now();
    await action();
    if (i >= 0) times.push(microsecondsSince(started, per));
  }
  return times.sort((a, b) => a - b);
}

function checkResult(y: Float32Array): void {
  if (!y.every(Number.isFinite) || y.every((value) => value === 0)) throw new Error('the product is wrong');
}

/** Calls one after the other in one submission, everything in place; products take turns, so that all see the same machine. */
async function steady(products: readonly Product[]): Promise<number[][]> {
  const programs: NativeProgram[] = [];
  const times = products.map((): number[] => []);
  const copiesOf = ({ bytes }: Product): number => Math.ceil((Number(values.cold) * 2 ** 20) / bytes);
  const callsOf = (of: Product): number => Math.max(calls, copiesOf(of));
  try {
    for (const of of products) {
      const program = await of.program(copiesOf(of), callsOf(of));
      programs.push(program);
      for (let copy = 0; copy < copiesOf(of); copy++) of.fill(program, copy);
      of.giveVector(program);
    }
    for (let sample = -2; sample < samples; sample++) {
      for (const [i, of] of products.entries()) {
        const started = performance.now();
        await programs[i]?.submit(1);
        if (sample >= 0) times[i]?.push(microsecondsSince(started, callsOf(of)));
      }
    }
    products.forEach((of, i) => {
      const program = programs[i];
      if (program) checkResult(of.takeResult(program));
    });
    return times.map((own) => own.sort((a, b) => a - b));
  } finally {
    for (const program of programs) program.close();
  }
}

/** The same call with more and more of its buffers made beforehand. */
async function pooling(what: string, of: Product): Promise<Pooling[]> {
  const run = async (program: NativeProgram): Promise<void> => {
    of.giveVector(program);
    await program.submit(0);
    of.takeResult(program);
  };
  const allocated = await timed(1, async () => {
    const program = await of.program(1, 1);
    of.fill(program, 0);
    await run(program);
    program.close();
  });
  const program = await of.program(1, calls);
  try {
    const copied = await timed(1, async () => {
      of.fill(program, 0);
      await run(program);
    });
    const pooled = await timed(1, () => run(program));
    const recorded = await timed(calls, () => program.submit(1));
    checkResult(of.takeResult(program));
    const modes = { allocated, copied, pooled, recorded } as const;
    return Object.entries(modes).map(([mode, microseconds]) => ({
      what,
      mode: mode as keyof typeof modes,
      microseconds,
    }));
  } finally {
    program.close();
  }
}

const folder = mkdtempSync(path.join(tmpdir(), 'upgc-spmv-'));
const measured: Measured[] = [];
const pools: Pooling[] = [];
try {
  const made = (format: Rule['format'], sparsify?: string): Promise<Product> =>
    product(folder, target, [size, size], { format, ...(sparsify && { sparsify }) }, device);
  const report = (one: Measured, dense: number): void => {
    measured.push(one);
    const time = median(one.microseconds);
    console.log(
      [
        one.format.padEnd(6),
        one.blocks.padEnd(6),
        `${Math.round(one.density * 100)} %`.padStart(6),
        `${(one.bytes / 2 ** 20).toFixed(1)} MiB`.padStart(10),
        `${spread(one.microseconds, 1)} µs`.padStart(28),
        `${(one.bytes / time / 1000).toFixed(1)} GB/s`.padStart(12),
        `${(dense / time).toFixed(2)} times as fast as dense`.padStart(28),
      ].join(' '),
    );
  };
  console.log(`${size} x ${size} on ${device}, ${samples} samples, [low median high]`);
  for (const format of formats) {
    for (const block of blocks) {
      const products = [await made(format)];
      for (const density of densities) products.push(await made(format, `magnitude:${density}:${block}`));
      const times = await steady(products);
      products.forEach(({ bytes }, i) => {
        const density = densities[i - 1];
        const about = { format, bytes, microseconds: times[i] ?? [] };
        report(
          density === undefined
            ? { ...about, blocks: 'dense', density: 1 }
            : { ...about, blocks: block, density },
          median(times[0] ?? []),
        );
      });
    }
  }
  console.log('\nA call of one product, from the vector on the host to the result on the host:');
  const labels = {
    allocated: 'buffers made, filled and freed for the call',
    copied: 'buffers kept, weights copied in for the call',
    pooled: 'weights and buffers stay',
    recorded: `and ${calls} calls in one submission`,
  } as const;
  for (const [what, product] of [
    ['f16 dense', await made('f16')],
    ['f16 1x1 at 50 %', await made('f16', 'magnitude:0.5')],
    ['q4g32 4x8 at 50 %', await made('q4g32', 'magnitude:0.5:4x8')],
  ] as const) {
    for (const one of await pooling(what, product)) {
      pools.push(one);
      console.log(`${what.padEnd(18)} ${`${spread(one.microseconds)} µs`.padStart(26)}  ${labels[one.mode]}`);
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
if (values.json !== undefined)
  writeFileSync(
    values.json,
    `${JSON.stringify({ device, size, samples, coldMiB: Number(values.cold), products: measured, pooling: pools }, null, 1)}\n`,
  );
