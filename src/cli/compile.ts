import cliProgress from 'cli-progress';
import { Command } from 'commander';
import type { CompileSummary, EntrySummary } from '../compiler.js';
import { relativeTo } from '../diagnostic.js';
import { checkStage, stageNames } from '../passes/pipeline.js';
import { byteSize, withModelOptions, type ModelFlags } from './arguments.js';
import { formatBytes, formatCount } from './format.js';

interface CompileFlags extends ModelFlags {
  readonly memoryBudget?: number;
  readonly calibrate?: string;
  readonly out?: string;
  readonly dump?: string;
  readonly stopAfter?: string;
  readonly json?: boolean;
}

const signals = ['SIGINT', 'SIGTERM'] as const;

export function compileCommand(): Command {
  const command = new Command('compile')
    .description(
      'Compile a model into a build folder: plan.json, kernels.metal and, with --weights, weights.bin',
    )
    .argument(
      '[model.graph.ts]',
      'the file whose default export is the model (default: what the package has for the architecture of --weights)',
    );
  return withModelOptions(command)
    .option(
      '--memory-budget <size>',
      'refuse a build that needs more memory: 8GiB, 900MB, or bytes',
      byteSize,
    )
    .option('--calibrate <text>', 'search scales for what the model makes of a text file in UTF-8')
    .option('--out <dir>', 'the build folder (default: build/<model>)')
    .option(
      '--dump <pass>',
      `print the model after a pass, and write only with --out: ${stageNames.join(', ')}`,
    )
    .option('--stop-after <pass>', 'end after a pass, writing nothing')
    .option('--json', 'print the summary as JSON')
    .action(run);
}

async function run(model: string | undefined, flags: CompileFlags): Promise<void> {
  const { dump, json = false, ...rest } = flags;
  if (dump !== undefined) checkStage(dump);
  // It loads TypeScript, which --help does not need.
  const { compile } = await import('../compiler.js');
  // With --json, stdout is JSON alone.
  const dumpTo = json ? process.stderr : process.stdout;
  const bar = new cliProgress.SingleBar({
    format: 'weights {bar} {percentage}% of {size}, {speed}/s, {eta_formatted} left',
    stream: process.stderr,
    noTTYOutput: false,
    clearOnComplete: true,
    hideCursor: true,
  });
  const calibration = new cliProgress.SingleBar({
    format: 'calibration {bar} {percentage}% of {total} tokens, {eta_formatted} left',
    stream: process.stderr,
    noTTYOutput: false,
    clearOnComplete: true,
    hideCursor: true,
  });
  let started: { readonly done: number; readonly at: number } | undefined;
  // Installed while the process can be interrupted half-way through writing: it then exits by the front door, which
  // keeps what the next build can go on from and removes the rest. Elsewhere a signal ends it at once.
  const interrupted = (): never => process.exit(130);
  const summary = await compile({
    model,
    ...rest,
    ...(dump !== undefined && rest.out === undefined ? { out: null } : {}),
    onStage: (stage, text) => {
      if (stage === dump) dumpTo.write(text());
    },
    onCalibration: (done, total) => {
      if (!process.stderr.isTTY) return;
      if (!calibration.isActive) calibration.start(total, 0);
      calibration.update(done);
      if (done === total) calibration.stop();
    },
    onProgress: (done, total) => {
      if (process.listenerCount('SIGINT') === 0)
        for (const signal of signals) process.once(signal, interrupted);
      if (!process.stderr.isTTY) return;
      if (!started && done > 0 && done < total)
        process.stderr.write(`weights: resumes at ${Math.floor((100 * done) / total)} %\n`);
      if (!started) bar.start(total, done, { size: formatBytes(total), speed: formatBytes(0) });
      started ??= { done, at: performance.now() };
      const seconds = (performance.now() - started.at) / 1000;
      bar.update(done, { speed: formatBytes(seconds > 0 ? Math.round((done - started.done) / seconds) : 0) });
    },
  }).finally(() => {
    calibration.stop();
    bar.stop();
    for (const signal of signals) process.off(signal, interrupted);
  });
  if (!summary) return;
  if (json) process.stdout.write(`${JSON.stringify(summary, null, 2)}\n`);
  else if (dump === undefined) process.stdout.write(formatSummary(summary));
  else process.stderr.write(formatSummary(summary));
}

function poolQuality({ bytes, lowerBound, optimal }: EntrySummary['pool']): string {
  if (optimal) return ' (optimal)';
  return `, ${Math.ceil((bytes / lowerBound - 1) * 100)} % above the lower bound`;
}

/** `1.10 MiB, 4.71 bits each: q4g32 972.0 KiB, q6g32 156.0 KiB, bf16 3.38 KiB`, or `27.3 GiB of bf16` */
function weightsLine({ weightBytes, bitsPerWeight, formats }: CompileSummary): string {
  const [only, ...others] = Object.keys(formats);
  if (only !== undefined && others.length === 0) return `${formatBytes(weightBytes)} of ${only}`;
  const parts = Object.entries(formats)
    .sort(([, a], [, b]) => b.bytes - a.bytes)
    .map(([format, { bytes }]) => `${format} ${formatBytes(bytes)}`);
  return `${formatBytes(weightBytes)}, ${bitsPerWeight.toFixed(2)} bits each: ${parts.join(', ')}`;
}

function formatSummary(summary: CompileSummary): string {
  const { entries } = summary;
  const entryLine = (name: keyof typeof entries): string => {
    const { dispatches, dispatchesPerLayer, dispatchesOutside, barriers, pool } = entries[name];
    const shares = `${dispatchesPerLayer} a layer, ${dispatchesOutside} outside`;
    return `${dispatches} dispatches: ${shares}; ${barriers} barriers, pool ${formatBytes(pool.bytes)}${poolQuality(pool)}`;
  };
  const rows: readonly (readonly [string, string])[] = [
    [
      'model',
      `${summary.model}, ${formatCount(summary.parameters)} parameters, context ${formatCount(summary.context)}`,
    ],
    ['target', summary.target],
    ['nodes', `${summary.nodes} → ${summary.kernels} kernels`],
    ['decode', entryLine('decode')],
    ['prefill', entryLine('prefill')],
    ['KV cache', formatBytes(summary.kvBytes)],
    ['weights', weightsLine(summary)],
    ...summary.notes.map((note) => ['note', note] as const),
    ['total', `${formatBytes(summary.totalBytes)} of device memory`],
    summary.out === null
      ? ['compiled', `in ${(summary.ms / 1000).toFixed(1)} s, not written`]
      : ['written', `${relativeTo(process.cwd(), summary.out)} in ${(summary.ms / 1000).toFixed(1)} s`],
  ];
  return rows.map(([label, text]) => `${label.padEnd(9)} ${text}\n`).join('');
}
