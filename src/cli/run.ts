import { Command } from 'commander';
import { UserError } from '../diagnostic.js';
import { Session, type GenerateOptions, type OpenOptions } from '../runtime/index.js';
import { nonNegative, tokenList, wholeNumber } from './arguments.js';
import { rate } from './format.js';

interface RunFlags {
  readonly prompt?: string;
  readonly tokens?: number[];
  readonly maxTokens?: number;
  readonly greedy?: boolean;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly seed?: number;
  readonly ignoreEos?: boolean;
  readonly device: string;
  readonly threads?: number;
  readonly sanitize?: boolean;
  readonly shuffle?: number;
  readonly json?: boolean;
}

export function runCommand(): Command {
  return new Command('run')
    .description('Generate text with a compiled model. Text goes to stdout, statistics to stderr')
    .argument('<build dir>', 'the folder that compile wrote')
    .option('--prompt <text>', 'text to go on from (default: the beginning of a text)')
    .option('--tokens <ids>', 'token ids to go on from, like 1,2,3', tokenList)
    .option(
      '--max-tokens <n>',
      'most tokens to generate (default: as many as the context holds)',
      wholeNumber(0),
    )
    .option('--greedy', 'always take the likeliest token')
    .option('--temperature <t>', 'divides the logits before sampling', nonNegative)
    .option('--top-k <n>', 'draw among this many of the likeliest tokens (default: 0, all)', wholeNumber(0))
    .option('--top-p <p>', 'draw among the likeliest that together have this probability', nonNegative)
    .option(
      '--min-p <p>',
      'draw among those at least this many times as likely as the likeliest',
      nonNegative,
    )
    .option('--seed <n>', 'the same seed draws the same tokens (default: random)', wholeNumber(0))
    .option('--ignore-eos', 'go on after an end-of-sequence token')
    .option('--device <name>', 'where to run: auto, cuda, cpu, or cpu:simt for 32-lane builds only', 'auto')
    .option('--threads <n>', 'OS threads of the CPU device (default: 1)', wholeNumber(1))
    .option('--sanitize', "check every access of every kernel: bounds, races, threadgroup memory's first use")
    .option(
      '--shuffle <seed>',
      'run what no barrier orders in a random order, to find missing barriers',
      wholeNumber(0),
    )
    .option('--json', 'print tokens, text and statistics as JSON')
    .action(run);
}

async function run(dir: string, flags: RunFlags): Promise<void> {
  if (flags.prompt !== undefined && flags.tokens !== undefined) {
    throw new UserError('give --prompt or --tokens, not both');
  }
  const session = await openShowing(dir, openOptions(flags));
  try {
    const result = await generate(session, flags);
    if (flags.json) process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
    else {
      process.stdout.write('\n');
      process.stderr.write(
        `prefill ${result.prefill.tokens} tokens, ${result.prefill.tokensPerSecond} tokens/s; ` +
          `decode ${result.decode.tokens} tokens, ${result.decode.tokensPerSecond} tokens/s\n`,
      );
    }
  } finally {
    session.close();
  }
}

/** The first time a build is opened its kernels are compiled, which takes seconds: say so on a terminal. */
async function openShowing(dir: string, options: OpenOptions): Promise<Session> {
  const terminal = process.stderr.isTTY;
  if (terminal) process.stderr.write(`opening ${dir} …`);
  try {
    return await Session.open(dir, options);
  } finally {
    if (terminal) process.stderr.write('\r\x1b[K');
  }
}

async function generate(session: Session, flags: RunFlags) {
  const start = firstTokens(session, flags);
  const tokens: number[] = [];
  let text = '';
  const began = performance.now();
  let firstAt = began;
  for await (const token of session.generate(start, generateOptions(flags))) {
    if (tokens.length === 0) firstAt = performance.now();
    tokens.push(token.id);
    text += token.text;
    if (!flags.json)
      process.stdout.write(session.tokenizer ? token.text : `${tokens.length > 1 ? ',' : ''}${token.id}`);
  }
  // The step that reads the prompt also makes the first token; without one, nothing was read.
  const read = tokens.length > 0 ? start.length : 0;
  const decoded = Math.max(0, tokens.length - 1);
  return {
    tokens,
    text,
    prefill: { tokens: read, tokensPerSecond: rate(read, firstAt - began) },
    decode: { tokens: decoded, tokensPerSecond: rate(decoded, performance.now() - firstAt) },
    stats: session.stats,
  };
}

function openOptions({ device, threads, sanitize, shuffle }: RunFlags): OpenOptions {
  const given = { threads, sanitize, shuffle };
  return { device, ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) };
}

function generateOptions(flags: RunFlags): GenerateOptions {
  const { maxTokens, greedy, temperature, topK, topP, minP, seed, ignoreEos } = flags;
  const given = { maxTokens, greedy, temperature, topK, topP, minP, seed, ignoreEos };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

function firstTokens(session: Session, { prompt, tokens }: RunFlags): readonly number[] {
  if (tokens) return tokens;
  if (prompt !== undefined) {
    if (session.tokenizer) return session.tokenizer.encode(prompt);
    throw new UserError('this build has no tokenizer.json, so it cannot read a --prompt', {
      notes: ['give --tokens 1,2,3'],
    });
  }
  const { bosToken } = session.plan.model;
  if (bosToken !== null) return [bosToken];
  throw new UserError('this model has no beginning-of-sequence token', {
    notes: [session.tokenizer ? 'give a --prompt or --tokens' : 'give --tokens 1,2,3'],
  });
}
