import cliProgress from 'cli-progress';
import { Command } from 'commander';
import { UserError } from '../diagnostic.js';
import { readText } from '../input-file.js';
import {
  compareBuilds,
  evaluate,
  Session,
  type Comparison,
  type EvaluateOptions,
  type Evaluation,
  type OpenOptions,
} from '../runtime/index.js';
import { wholeNumber } from './arguments.js';
import { formatCount } from './format.js';

interface EvalFlags {
  readonly text: string;
  readonly context?: number;
  readonly compare?: string[];
  readonly device: string;
  readonly threads?: number;
  readonly json?: boolean;
}

export function evalCommand(): Command {
  return new Command('eval')
    .description('Measure how well a compiled model predicts a text, or how far one build is from another')
    .argument('[build dir]', 'the folder that compile wrote')
    .requiredOption('--text <file>', 'a text in UTF-8')
    .option(
      '--context <n>',
      "tokens of a window, each a text of its own (default: the build's context)",
      wholeNumber(1),
    )
    .option('--compare <builds...>', 'two build folders: the second is measured against the first')
    .option('--device <name>', 'where to run: auto, cuda, cpu, or cpu:simt for 32-lane builds only', 'auto')
    .option('--threads <n>', 'OS threads of the CPU device (default: 1)', wholeNumber(1))
    .option('--json', 'print the results as JSON')
    .action(run);
}

async function run(build: string | undefined, flags: EvalFlags): Promise<void> {
  const builds = buildsOf(build, flags.compare);
  const text = readText(flags.text);
  const sessions: Session[] = [];
  const bar = progressBar();
  try {
    for (const dir of builds) sessions.push(await Session.open(dir, openOptions(flags)));
    const tokens = tokensOf(text, sessions, builds);
    const options: EvaluateOptions = {
      ...(flags.context === undefined ? {} : { context: flags.context }),
      onProgress: (done, total) => bar.show(done, total),
    };
    const [first, second] = sessions;
    if (!first) return;
    const result = await (
      second ? compareBuilds(first, second, tokens, options) : evaluate(first, tokens, options)
    ).finally(() => bar.stop());
    process.stdout.write(flags.json ? `${JSON.stringify(result, null, 2)}\n` : formatted(result));
  } finally {
    for (const session of sessions) session.close();
  }
}

function buildsOf(build: string | undefined, compare: readonly string[] | undefined): readonly string[] {
  if (build !== undefined && compare === undefined) return [build];
  if (build === undefined && compare?.length === 2) return compare;
  throw new UserError('give one build folder, or --compare with two', {
    notes: ['upgc eval BUILD --text FILE', 'upgc eval --compare REFERENCE BUILD --text FILE'],
  });
}

function openOptions({ device, threads }: EvalFlags): OpenOptions {
  return { device, ...(threads === undefined ? {} : { threads }) };
}

/** The ids of the text, which two builds must agree on. */
function tokensOf(text: string, sessions: readonly Session[], builds: readonly string[]): readonly number[] {
  const [first = [], second] = sessions.map(({ tokenizer }, i) => {
    if (tokenizer) return tokenizer.encode(text);
    throw new UserError(`${builds[i]} has no tokenizer.json, so it cannot read a text`);
  });
  if (second && (first.length !== second.length || first.some((id, i) => id !== second[i]))) {
    throw new UserError('the builds cannot be compared: their tokenizers cut the text differently');
  }
  return first;
}

/** A bar on a terminal, nothing elsewhere. */
function progressBar(): { show: (done: number, total: number) => void; stop: () => void } {
  const bar = new cliProgress.SingleBar({
    format: 'eval {bar} {percentage}% of {total} tokens, {eta_formatted} left',
    stream: process.stderr,
    noTTYOutput: false,
    clearOnComplete: true,
    hideCursor: true,
  });
  let started = false;
  return {
    show(done, total) {
      if (!process.stderr.isTTY) return;
      if (!started) bar.start(total, 0);
      started = true;
      bar.update(done);
    },
    stop: () => bar.stop(),
  };
}

function formatted(result: Evaluation | Comparison): string {
  const line = (name: string, { nll, perplexity, tokens, tokensPerSecond }: Evaluation): string =>
    `${name}nll ${nll.toFixed(4)} nats, perplexity ${perplexity.toFixed(3)}; ` +
    `${formatCount(tokens)} tokens, ${tokensPerSecond.toFixed(1)} tokens/s\n`;
  if (!('reference' in result)) return line('', result);
  return (
    line('reference  ', result.reference) +
    line('build      ', result) +
    `KL divergence ${result.klDivergence.toPrecision(4)} nats, top-1 agreement ${(100 * result.top1Agreement).toFixed(2)} %\n`
  );
}
