import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import path from 'node:path';
import { Command, Option } from 'commander';
import { z } from 'zod';
import { CompilerBug, UserError } from '../diagnostic.js';
import type { NdArray } from '../ir/define.js';
import { isLeaf, isOp, type Graph, type Node } from '../ir/graph.js';
import { evaluateNode } from '../ir/interpret.js';
import { bindShape, elementCount } from '../ir/type.js';
import { costOf } from '../passes/cost.js';
import { targets, type TargetName } from '../passes/target.js';
import { bestDevice } from '../runtime/addon.js';
import { Session, type Execution } from '../runtime/index.js';
import { wholeNumber } from './arguments.js';
import { formatBytes } from './format.js';

/**
 * The ladder: what each step from an op-by-op interpreter to a compiled plan brings, measured on one model and device.
 * Every rung is a real way to compile or run that model, and keeps what the rungs before it brought.
 */

interface Rung {
  readonly what: string;
  /** How the model is compiled for it. */
  readonly build: 'unfused' | 'fused' | 'quantised';
  readonly execution: Execution;
  /** Whether keys and values of earlier tokens are kept; otherwise a token is computed from the whole text again. */
  readonly cached: boolean;
  /** Whether one submission makes many tokens, each from the id that the last one left on the device. */
  readonly looped: boolean;
}

const first: Rung = {
  what: 'buffers allocated per call, copied in and out',
  build: 'unfused',
  execution: 'allocations',
  cached: false,
  looped: false,
};
const pooled: Rung = { ...first, what: '+ static pool', execution: 'copies' };
const resident: Rung = { ...pooled, what: '+ tensors stay on the device', execution: 'dispatches' };
const whole: Rung = { ...resident, what: '+ one submission for all layers', execution: 'whole' };
const cached: Rung = { ...whole, what: '+ KV cache', cached: true };
const fused: Rung = { ...cached, what: '+ fusion', build: 'fused' };
const quantised: Rung = { ...fused, what: '+ quantised weights', build: 'quantised' };
const looped: Rung = { ...quantised, what: '+ token loop on the device', looped: true };

/** From the first on. */
const rungs: readonly Rung[] = [first, pooled, resident, whole, cached, fused, quantised, looped];

const count = z.int().nonnegative();
const perToken = z.number().nonnegative();

/** What `--json` writes. Times are in ms, in the order in which they were taken. */
export const ladderSchema = z.strictObject({
  model: z.string(),
  weights: z.string(),
  device: z.string(),
  target: z.string(),
  processor: z.string(),
  processors: count,
  threads: count,
  /** Tokens of the text that the measured tokens follow. */
  context: count,
  /** Tokens of a sample on the rungs with a KV cache; one on the others. */
  tokens: count,
  /** Rung 0. With `operations` < `of`, the time for all is that of these, scaled by what they have to compute. */
  interpreter: z.strictObject({ ms: z.number().positive(), operations: count, of: count }),
  rungs: z.array(
    z.strictObject({
      rung: count,
      what: z.string(),
      /** Of a token, by sample. */
      ms: z.array(z.number().positive()).min(1),
      submissions: perToken,
      dispatches: perToken,
      allocations: perToken,
      weightBytes: count,
      /** Drawn greedily. */
      ids: z.array(count),
    }),
  ),
});
export type Ladder = z.output<typeof ladderSchema>;
type Measured = Ladder['rungs'][number];

interface LadderFlags {
  readonly weights: string;
  readonly quantize: string;
  readonly context: number;
  readonly tokens: number;
  readonly samples: number;
  readonly target: 'auto' | TargetName;
  readonly device: string;
  readonly threads: number;
  readonly keep?: string;
  readonly json?: string;
}

export function ladderCommand(): Command {
  return new Command('ladder')
    .description('Time a token on every rung from an interpreter to a token loop on the device')
    .argument('[model.graph.ts]', 'the model (default: as of compile)')
    .requiredOption('--weights <path>', 'as of compile')
    .option('--quantize <how>', 'how matrices are stored on the last rungs; bf16 before', 'q4')
    .option('--context <n>', 'tokens of the text to go on from', wholeNumber(2), 64)
    .option('--tokens <n>', 'tokens of a sample, on the rungs with a KV cache', wholeNumber(1), 16)
    .option('--samples <n>', 'how often each rung is timed, after a warm-up', wholeNumber(1), 5)
    .addOption(
      new Option('--target <name>', 'what to compile for')
        .choices(['auto', ...Object.keys(targets)])
        .default('auto', 'auto: the best device of this machine'),
    )
    .option('--device <name>', 'where to run: auto, cuda, cpu, or cpu:simt', 'auto')
    .option('--threads <n>', 'OS threads of the CPU device', wholeNumber(1), 1)
    .option('--keep <dir>', 'a folder for the builds, which stay (default: removed one by one)')
    .option('--json <file>', 'write all samples to a file')
    .action(run);
}

async function run(model: string | undefined, flags: LadderFlags): Promise<void> {
  const dir = flags.keep ?? mkdtempSync(path.join(tmpdir(), 'upgc-ladder-'));
  const remove = (): void => {
    if (flags.keep === undefined) rmSync(dir, { recursive: true, force: true });
  };
  // A build can be large: it goes also when the process is interrupted.
  const interrupted = (): never => process.exit(130);
  process.once('exit', remove).once('SIGINT', interrupted).once('SIGTERM', interrupted);
  try {
    mkdirSync(dir, { recursive: true });
    const ladder = await climb(model, dir, flags);
    show('');
    process.stdout.write(formatted(ladder));
    if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(ladder, null, 1)}\n`);
    checkIds(ladder);
  } finally {
    remove();
    process.off('exit', remove).off('SIGINT', interrupted).off('SIGTERM', interrupted);
  }
}

/** The line on a terminal that says what is being done; nothing elsewhere. */
function show(what: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${what}`);
}

async function climb(file: string | undefined, dir: string, flags: LadderFlags): Promise<Ladder> {
  // It loads TypeScript, which --help does not need.
  const { compile, openModel } = await import('../compiler.js');
  const { weights, context, tokens, target, threads } = flags;
  show('rung 0: reference interpreter');
  const { model, built } = openModel({ model: file, weights });
  const interpreter = interpretFor(interpreterMs, built.graph, context);
  const device = flags.device === 'auto' && target === 'cpu' ? 'cpu' : flags.device;
  const measured: Measured[] = [];
  // Texts that are computed again and again fit one step.
  const size = { context: context + Math.max(tokens, recomputed) + 1, chunk: context + recomputed };
  let open: { readonly like: Rung; readonly session: Session; readonly out: string } | undefined;
  const close = (next?: Rung): void => {
    open?.session.close();
    if (open && next?.build !== open.like.build && flags.keep === undefined)
      rmSync(open.out, { recursive: true });
    open = undefined;
  };
  let compiledFor = '';
  try {
    for (const [i, rung] of rungs.entries()) {
      const { build, execution } = rung;
      if (open?.like.build !== build || open.like.execution !== execution) {
        close(rung);
        const out = path.join(dir, build);
        if (build !== rungs[i - 1]?.build) {
          show(`rung ${i + 1}: ${rung.what}: compiling`);
          const quantize = build === 'quantised' ? flags.quantize : 'bf16';
          const summary = await compile({
            model,
            weights,
            target,
            quantize,
            ...size,
            fuse: build !== 'unfused',
            out,
          });
          compiledFor = summary?.target ?? '';
        }
        open = { like: rung, session: await Session.open(out, { device, threads, execution }), out };
      }
      show(`rung ${i + 1}: ${rung.what}`);
      measured.push({ rung: i + 1, what: rung.what, ...(await measure(open.session, rung, flags)) });
    }
  } finally {
    close();
  }
  return {
    model: model.name,
    weights,
    device: device === 'auto' ? bestDevice() : device,
    target: compiledFor,
    processor: cpus()[0]?.model ?? '',
    processors: availableParallelism(),
    threads,
    context,
    tokens,
    interpreter,
    rungs: measured,
  };
}

/** Ids that look like a text to the model. */
const promptOf = (length: number, vocabulary: number): number[] =>
  Array.from({ length }, (_, i) => (i * 7919 + 13) % vocabulary);

async function generate(session: Session, tokens: readonly number[], maxTokens: number, burst = 1) {
  const ids: number[] = [];
  const options = { maxTokens, burst, greedy: true, ignoreEos: true };
  for await (const { id } of session.generate(tokens, options)) ids.push(id);
  return ids;
}

/** Without a KV cache the text grows by this many tokens, and begins again. */
const recomputed = 4;

/** Times a rung after a warm-up. A sample is one token, or as many as asked for where they follow each other. */
async function measure(
  session: Session,
  rung: Rung,
  { context, tokens, samples }: LadderFlags,
): Promise<Omit<Measured, 'rung' | 'what'>> {
  const prompt = promptOf(context, session.plan.model.vocabulary);
  const count = rung.cached ? tokens : 1;
  const ms: number[] = [];
  const ids: number[] = [];
  let before = session.stats;
  for (let sample = 0; sample <= samples; sample++) {
    session.reset();
    const known = rung.cached ? 1 : sample % recomputed;
    if (rung.cached) ids.splice(0, 1, ...(await generate(session, prompt, 1)));
    const text = rung.cached ? [] : [...prompt, ...ids.slice(0, known)];
    before = session.stats;
    const started = performance.now();
    const drawn = await generate(session, text, count, rung.looped ? count : 1);
    const took = performance.now() - started;
    ids.splice(known, count, ...drawn);
    if (sample > 0) ms.push(took / count);
  }
  const { submissions, deviceAllocations, dispatchesPerStep } = session.stats;
  return {
    ms,
    submissions: (submissions - before.submissions) / count,
    dispatches: rung.cached ? dispatchesPerStep.decode : dispatchesPerStep.prefill,
    allocations: (deviceAllocations - before.deviceAllocations) / count,
    weightBytes: session.plan.weights.reduce((sum, { bytes }) => sum + bytes, 0),
    ids,
  };
}

/** How long the interpreter runs at most, but for the operation that it is at. */
const interpreterMs = 5000;

/**
 * Interprets the model's operations over a text, in their order, as far as it comes in a time. What weights hold makes
 * no difference to that.
 */
function interpretFor(limit: number, model: Graph, tokens: number): Ladder['interpreter'] {
  const graph = { ...model, dims: { ...model.dims, T: tokens, C: tokens } };
  const values = new Map<Node, NdArray>();
  const valueOf = (node: Node): NdArray => {
    const shape = bindShape(node.type.shape, graph.dims);
    if (isOp(node, 'weight', 'input')) {
      const value = isOp(node, 'weight') ? 0.01 : 1;
      return { shape, data: new Float64Array(elementCount(shape)).fill(value) };
    }
    const value = values.get(node) ?? (isLeaf(node) ? evaluateNode(node, [], graph.dims) : undefined);
    if (!value) throw new CompilerBug(`${node.op} is used before it is computed`);
    return value;
  };
  const computed = graph.nodes.filter((node) => !isLeaf(node));
  const work = (nodes: readonly Node[]): number =>
    nodes.reduce((flops, node) => flops + costOf(node, graph).flops, 0);
  let ms = 0;
  for (const node of computed) {
    const inputs = node.inputs.map(valueOf);
    const started = performance.now();
    values.set(node, evaluateNode(node, inputs, graph.dims));
    ms += performance.now() - started;
    if (ms > limit) break;
  }
  const done = computed.slice(0, values.size);
  return { ms: (ms * work(computed)) / work(done), operations: done.length, of: computed.length };
}

/** @throws {UserError} when rungs whose matrices are stored alike draw different ids */
export function checkIds({ rungs: measured }: Ladder): void {
  for (const [i, { rung, what, ids }] of measured.entries()) {
    const stored = (place: number): boolean => rungs[place]?.build === 'quantised';
    const like = measured.find((_, place) => stored(place) === stored(i));
    const differs = ids.findIndex((id, at) => at < (like?.ids.length ?? 0) && id !== like?.ids[at]);
    if (!like || differs < 0) continue;
    throw new UserError(
      `rung ${rung} (${what}) draws token ${differs + 1} as ${ids[differs]}, rung ${like.rung} as ${like.ids[differs]}`,
      { notes: ['their matrices hold the same values, so the ids should be the same'] },
    );
  }
}

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return ((sorted[Math.floor((sorted.length - 1) / 2)] ?? NaN) + (sorted[sorted.length >> 1] ?? NaN)) / 2;
};

/** `1.23`, `45.6`, `789`, and no more digits where there are more. */
const short = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

/** The table, its head first: a cell for each column. */
export function ladderRows({ interpreter, rungs: measured }: Ladder): readonly (readonly string[])[] {
  const base = median(measured[0]?.ms ?? []);
  const { ms: interpreted, operations, of } = interpreter;
  const scaled = operations < of ? `, scaled from ${operations} of ${of} operations` : '';
  const times = (low: number, middle: number, high: number): readonly string[] => [
    low === high ? short(middle) : `[${[low, middle, high].map(short).join(' ')}]`,
    short(1000 / middle),
    short(base / middle),
  ];
  return [
    ['', 'rung', 'ms a token', 'tokens/s', 'ratio', 'submissions', 'dispatches', 'allocations', 'weights'],
    [
      '0',
      `reference interpreter${scaled}`,
      ...times(interpreted, interpreted, interpreted),
      ...Array<string>(4).fill(''),
    ],
    ...measured.map(({ rung, what, ms, submissions, dispatches, allocations, weightBytes }) => [
      String(rung),
      what,
      ...times(Math.min(...ms), median(ms), Math.max(...ms)),
      submissions < 1 ? `1/${Math.round(1 / submissions)}` : String(submissions),
      String(dispatches),
      String(allocations),
      formatBytes(weightBytes),
    ]),
  ];
}

function formatted(ladder: Ladder): string {
  const { model, weights, device, target, context, tokens } = ladder;
  const rows = ladderRows(ladder);
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0))) ?? [];
  const line = (row: readonly string[]): string =>
    row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  ');
  return [
    `${model} (${weights}) for ${target} on ${device}, after ${context} tokens; [low median high], of a token:`,
    ...rows.map((row) => line(row).trimEnd()),
    `Rungs 1 to 4 compute a token from the whole text again. From rung 5 on a sample is of ${tokens} tokens.`,
    '',
  ].join('\n');
}
