/**
 * How far builds of phi4-shakespeare are from the one with the checkpoint's own weights, over all of a held-out text.
 * `npm run bench:quality -- [--json] [--svg FILE]`
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { compile, type CompileOptions, type CompileSummary } from '#dist/compiler.js';
import { policyOf, type Policy } from '#dist/ir/policy.js';
import { compareBuilds, Session, type Comparison } from '#dist/runtime/index.js';
import { plot } from './plot.js';

const checkpoint = 'examples/phi4-shakespeare';
const context = 256;
const calibrationTokens = 4096;

interface Row {
  readonly name: string;
  readonly series: string;
  readonly bytes: number;
  readonly bitsPerWeight: number;
  readonly result: Comparison;
}

const nearest = (recipe: string): Policy =>
  policyOf(recipe).map((rule) => ({ ...rule, method: 'nearest' as const }));

/** What the reference build itself writes, so that what is evaluated stays unseen. */
async function writeCalibrationText(reference: Session, file: string): Promise<void> {
  let text = '';
  for (let seed = 1; seed <= calibrationTokens / context; seed++) {
    reference.reset();
    const start = [reference.plan.model.bosToken ?? 0];
    for await (const token of reference.generate(start, {
      temperature: 1,
      seed,
      maxTokens: context - 1,
      ignoreEos: true,
    }))
      text += token.text;
  }
  writeFileSync(file, text);
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { json: { type: 'boolean' }, svg: { type: 'string' } } });
  const folder = mkdtempSync(path.join(tmpdir(), 'upgc-quality-'));
  try {
    const build = async (name: string, options: CompileOptions): Promise<[Session, CompileSummary]> => {
      const out = path.join(folder, name.replace(/\W+/g, '-'));
      const summary = await compile({ weights: checkpoint, context, out, ...options });
      if (!summary) throw new Error(`${name} was not compiled`);
      return [await Session.open(out), summary];
    };
    const [reference] = await build('reference', { quantize: 'bf16' });
    const ids =
      reference.tokenizer?.encode(readFileSync('test/fixtures/phi4-shakespeare/heldout.txt', 'utf8')) ?? [];
    const calibrate = path.join(folder, 'written.txt');
    await writeCalibrationText(reference, calibrate);
    const gguf = (type: string): CompileOptions => ({
      weights: `test/fixtures/gguf/phi4-shakespeare-${type}.gguf`,
    });
    const builds: readonly (readonly [name: string, series: string, CompileOptions])[] = [
      ['bf16', 'upgc', { quantize: 'bf16' }],
      ['q8', 'upgc', { quantize: 'q8' }],
      ['q6', 'upgc', { quantize: 'q6' }],
      ['q5', 'upgc', { quantize: 'q5' }],
      ['q4', 'upgc', { quantize: 'q4' }],
      ['q4, calibrated', 'calibrated', { quantize: 'q4', calibrate }],
      ['q4, nearest', 'round to nearest', { quantize: nearest('q4') }],
      ['q4g32', 'upgc', { quantize: 'q4g32' }],
      ['q4g32, calibrated', 'calibrated', { quantize: 'q4g32', calibrate }],
      ['q4g32, nearest', 'round to nearest', { quantize: nearest('q4g32') }],
      ['Q8_0.gguf', 'llama.cpp', gguf('Q8_0')],
      ['Q4_K_M.gguf', 'llama.cpp', gguf('Q4_K_M')],
      ['Q4_0.gguf', 'llama.cpp', gguf('Q4_0')],
    ];
    const rows: Row[] = [];
    for (const [name, series, options] of builds) {
      const [session, { weightBytes: bytes, bitsPerWeight }] = await build(name, options);
      const result = await compareBuilds(reference, session, ids, { context });
      session.close();
      rows.push({ name, series, bytes, bitsPerWeight, result });
      if (process.stderr.isTTY) process.stderr.write(`\r${rows.length} of ${builds.length} builds\x1b[K`);
    }
    reference.close();
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
    process.stdout.write(values.json ? `${JSON.stringify(rows, null, 2)}\n` : table(rows));
    // A logarithm has no 0, and 16 bits would leave no room for the rest.
    const shown = rows.filter(({ bitsPerWeight }) => bitsPerWeight < 8);
    const points = shown.map(({ name, series, bytes, result }) => ({
      // Calibrated builds are nearly where those without are.
      label: series === 'calibrated' ? '' : name.replace(/\.gguf$/, ''),
      series,
      x: bytes / 2 ** 20,
      y: result.klDivergence,
    }));
    if (values.svg !== undefined)
      writeFileSync(values.svg, plot(points, 'MiB of weights', 'KL divergence, nats'));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function table(rows: readonly Row[]): string {
  const cells = rows.map(({ name, bytes, bitsPerWeight, result }) => [
    name,
    bytes.toLocaleString('en'),
    bitsPerWeight.toFixed(2),
    result.nll.toFixed(4),
    result.klDivergence.toFixed(5),
    `${(100 * result.top1Agreement).toFixed(1)} %`,
  ]);
  const head = ['build', 'bytes', 'bits/weight', 'NLL, nats', 'KL, nats', 'same top-1'];
  return [head, ['---', ...head.slice(1).map(() => '---:')], ...cells]
    .map((line) => `| ${line.join(' | ')} |\n`)
    .join('');
}

await main();
