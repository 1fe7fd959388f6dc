/**
 * Decode and prefill of a build on a GPU, through the public API, beside what the same GPU can read in the same run.
 * `npm run bench:gpu -- BUILD [--contexts 64,2048] [--tokens 128] [--json FILE]`
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Session } from '#dist/runtime/session.js';
import { readPlan, type Plan } from '#dist/runtime/plan.js';
import { readCeiling } from './ceiling.js';

const repetitions = 5;

interface Decode {
  readonly context: number;
  /** Of the repetitions, in order of size. */
  readonly tokensPerSecond: readonly number[];
}

interface Prefill {
  readonly tokens: number;
  readonly tokensPerSecond: readonly number[];
}

const median = (sorted: readonly number[]): number => sorted[Math.floor(sorted.length / 2)] ?? NaN;
const ordered = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b);

/** Ids that look like a text to the model. */
const promptOf = (length: number, vocabulary: number): number[] =>
  Array.from({ length }, (_, i) => (i * 7919 + 13) % vocabulary);

/** Seconds for `tokens` tokens that follow `prompt`, which comes after the text so far; its own time is not counted. */
async function decode(session: Session, prompt: readonly number[], tokens: number): Promise<number> {
  let count = 0;
  let started = 0;
  for await (const token of session.generate(prompt, { maxTokens: tokens + 1, ignoreEos: true })) {
    if (count === 0) started = performance.now();
    if (token.id < 0) throw new Error('not an id');
    count++;
  }
  if (count !== tokens + 1) throw new Error(`${count} tokens instead of ${tokens + 1}`);
  return (performance.now() - started) / 1000;
}

async function prefill(session: Session, prompt: readonly number[]): Promise<number> {
  session.reset();
  const started = performance.now();
  for await (const { id } of session.generate(prompt, { maxTokens: 1, ignoreEos: true }))
    if (id < 0) throw new Error('not an id');
  return (performance.now() - started) / 1000;
}

/** Bytes of weights that a token reads: all but the rows of the embedding that it does not look up. */
function weightBytes({ weights }: Plan): number {
  const all = weights.reduce((sum, { bytes }) => sum + bytes, 0);
  const embedding = weights.find(({ name }) => name.endsWith('embed_tokens.weight'));
  return all - (weights.some(({ name }) => name.startsWith('lm_head')) ? (embedding?.bytes ?? 0) : 0);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    device: { type: 'string', default: 'cuda' },
    contexts: { type: 'string', default: '64,2048' },
    prefill: { type: 'string', default: '512' },
    tokens: { type: 'string', default: '128' },
    json: { type: 'string' },
  },
});
const [build] = positionals;
if (build === undefined) throw new Error('which build? npm run bench:gpu -- BUILD');
const plan = readPlan(build);
const ceiling = await readCeiling(values.device);
const bytes = weightBytes(plan);
console.log(`read ceiling ${ceiling.toFixed(0)} GB/s; ${(bytes / 1e9).toFixed(3)} GB of weights a token`);

function report(measured: Decode | Prefill | undefined): void {
  if (!measured) return;
  const { tokensPerSecond } = measured;
  const what = 'context' in measured ? `decode at ${measured.context}` : `prefill of ${measured.tokens}`;
  const [low, middle, high] = [
    tokensPerSecond[0] ?? NaN,
    median(tokensPerSecond),
    tokensPerSecond.at(-1) ?? NaN,
  ];
  const share =
    'context' in measured ? `, ${((middle * bytes) / (ceiling * 1e7)).toFixed(1)} % of the ceiling` : '';
  console.log(`${what}: [${[low, middle, high].map((x) => x.toFixed(1)).join(' ')}] tokens/s${share}`);
}

const session = await Session.open(build, { device: values.device });
const decodes: Decode[] = [];
const prefills: Prefill[] = [];
const tokens = Number(values.tokens);
for (const context of values.contexts.split(',').map(Number)) {
  session.reset();
  // The first warms up; the others go on from there, each a little deeper in the context.
  await decode(session, promptOf(context, plan.model.vocabulary), 1);
  const seconds: number[] = [];
  for (let i = 0; i < repetitions; i++) seconds.push(await decode(session, [1], tokens));
  decodes.push({ context, tokensPerSecond: ordered(seconds.map((s) => tokens / s)) });
  report(decodes.at(-1));
}
for (const length of values.prefill.split(',').map(Number)) {
  const prompt = promptOf(length, plan.model.vocabulary);
  const seconds: number[] = [];
  for (let i = 0; i < repetitions; i++) seconds.push(await prefill(session, prompt));
  prefills.push({ tokens: length, tokensPerSecond: ordered(seconds.map((s) => length / s)) });
  report(prefills.at(-1));
}
const { submissions, deviceAllocations, dispatchesPerStep } = session.stats;
session.close();

console.log(
  `${submissions} submissions, ${deviceAllocations} allocations after opening, dispatches ${JSON.stringify(dispatchesPerStep)}`,
);
if (values.json !== undefined)
  writeFileSync(
    values.json,
    `${JSON.stringify({ device: values.device, model: plan.model.name, target: plan.target, ceiling, bytes, decodes, prefills }, null, 1)}\n`,
  );
