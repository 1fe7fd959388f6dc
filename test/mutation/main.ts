import { cpSync, existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkFaults, type Fault } from './fault.js';
import { faults } from './faults/index.js';
import { Sandbox, stopTests, type TestRun } from './sandbox.js';

/**
 * Breaks copies of this repository, one deliberate mistake at a time, and counts those that the tests find. The tests
 * a fault names run first; when they pass, all others do. A test file that fails without any fault finds none.
 *
 *     --only TEXT   faults with this text in their description or file
 *     --quick       only the tests that faults name
 *     --json        the results as JSON, with the test that failed and its message
 */

/** The share of the faults that must be found. */
const target = 0.95;
const workers = 2;
const minute = 60_000;
const testLimitMs = 10 * minute;
const suiteLimitMs = 60 * minute;

/** The golden texts find any change of a kernel, right or wrong; the CLI's tests run dist/, which has no fault. */
const leftOut = ['test/codegen/golden.test.ts', 'test/cli/'];

interface Result {
  readonly fault: Fault;
  readonly outcome: 'killed' | 'timed out' | 'survived';
  /** The test file that failed. */
  readonly by: string;
  /** The test and its message. */
  readonly failure: string;
  readonly seconds: number;
}

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    quick: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});

const say = (line: string): void => void process.stderr.write(`${line}\n`);

let done = 0;
function progress(total: number, { fault, outcome, by, seconds }: Result): void {
  const line = `${++done}/${total} ${outcome.padEnd(9)} ${seconds.toFixed(0).padStart(4)} s  ${fault.what}  ${by}`;
  if (process.stderr.isTTY)
    process.stderr.write(`\r\x1b[K${line.slice(0, (process.stderr.columns || 80) - 1)}`);
  else say(line);
}

/** Runs files without a fault; those that pass. */
async function greenFiles(sandbox: Sandbox, files: readonly string[]): Promise<string[]> {
  const run = await sandbox.test(files, { workers, bail: false, limitMs: suiteLimitMs });
  const listed = run.files.filter(({ file }) => !leftOut.some((name) => file.startsWith(name)));
  if (listed.length === 0) throw new Error(`the tests do not run without a fault:\n${run.output}`);
  for (const { file, passed, failure } of listed)
    if (!passed) say(`${file} fails without a fault, so it cannot find one: ${failure.split('\n')[0] ?? ''}`);
  return listed.filter(({ passed }) => passed).map(({ file }) => file);
}

function resultOf(fault: Fault, run: TestRun, seconds: number): Result {
  const failed = run.files.find(({ passed }) => !passed);
  const outcome = run.timedOut ? 'timed out' : run.passed ? 'survived' : 'killed';
  const failure = failed?.failure ?? (outcome === 'killed' ? run.output : '');
  return { fault, outcome, by: failed?.file ?? (outcome === 'killed' ? 'a crash' : ''), failure, seconds };
}

/** Tries each fault on the files that `filesFor` gives, in all sandboxes at once. */
async function tryFaults(
  sandboxes: readonly Sandbox[],
  tried: readonly Fault[],
  filesFor: (fault: Fault) => readonly string[],
  limitMs: number,
  onResult: (result: Result) => void,
): Promise<Result[]> {
  const queue = [...tried];
  const results: Result[] = [];
  const work = async (sandbox: Sandbox): Promise<void> => {
    for (let fault = queue.shift(); fault; fault = queue.shift()) {
      const files = filesFor(fault);
      const started = performance.now();
      const run: TestRun =
        files.length === 0
          ? { timedOut: false, passed: true, files: [], output: '' }
          : await sandbox.withFault(fault, () => sandbox.test(files, { workers: 1, bail: true, limitMs }));
      const result = resultOf(fault, run, (performance.now() - started) / 1000);
      results.push(result);
      onResult(result);
    }
  };
  await Promise.all(sandboxes.map(work));
  return results;
}

async function tryAll(folder: string, chosen: readonly Fault[]): Promise<Result[]> {
  const cache = path.join(folder, 'cache');
  mkdirSync(cache, { mode: 0o700 });
  const compiled = path.join(root, 'build/cache');
  if (existsSync(compiled)) cpSync(realpathSync(compiled), cache, { recursive: true });
  const sandboxes = Array.from(
    { length: workers },
    (_, i) => new Sandbox(root, path.join(folder, String(i)), cache),
  );
  const [first] = sandboxes;
  if (!first) return [];

  const named = [...new Set(chosen.flatMap(({ tests }) => tests))];
  say(`${chosen.length} faults; first, ${named.length} test files without any`);
  const green = await greenFiles(first, named);
  const ownFiles = ({ tests }: Fault): string[] =>
    green.filter((file) => tests.some((name) => file.startsWith(name)));
  const results = await tryFaults(sandboxes, chosen, ownFiles, testLimitMs, (result) => {
    progress(chosen.length, result);
  });

  const missed = results.filter(({ outcome }) => outcome === 'survived').map(({ fault }) => fault);
  if (missed.length === 0 || options.quick) return results;
  say(
    `\n${missed.length} faults were not found by the tests they name; now all tests, first without a fault`,
  );
  const all = await greenFiles(first, []);
  done = 0;
  const others = (fault: Fault): string[] => {
    const own = new Set(ownFiles(fault));
    return all.filter((file) => !own.has(file));
  };
  const second = await tryFaults(sandboxes, missed, others, suiteLimitMs, (result) => {
    progress(missed.length, result);
  });
  return results.map((result) => second.find(({ fault }) => fault === result.fault) ?? result);
}

/** One line a fault, in the order of the list. */
function table(results: readonly Result[]): string {
  const width = Math.max(...results.map(({ by }) => by.length));
  return results
    .map(
      ({ fault, outcome, by, seconds }) =>
        `${outcome.padEnd(9)}  ${by.padEnd(width)}  ${seconds.toFixed(0).padStart(4)} s  ${fault.what} (${fault.file})`,
    )
    .join('\n');
}

async function main(): Promise<void> {
  checkFaults(root, faults);
  const { only } = options;
  const chosen = faults.filter(({ what, file }) => what.includes(only) || file.includes(only));
  if (chosen.length === 0) throw new Error(`no fault has '${only}' in its file or description`);
  const folder = mkdtempSync(path.join(realpathSync(tmpdir()), 'upgc-mutation-'));
  process.on('exit', () => {
    stopTests();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1));

  const order = new Map(faults.map((fault, i) => [fault, i]));
  const place = ({ fault }: Result): number => order.get(fault) ?? 0;
  const results = (await tryAll(folder, chosen)).sort((a, b) => place(a) - place(b));
  const killed = results.filter(({ outcome }) => outcome !== 'survived').length;
  const score = killed / results.length;
  if (process.stderr.isTTY) say('');
  process.stdout.write(
    options.json
      ? `${JSON.stringify({ score, results }, undefined, 2)}\n`
      : `${table(results)}\n\n${killed} of ${results.length} faults found: ${(100 * score).toFixed(1)} %, at least ${100 * target} % are asked for\n`,
  );
  process.exitCode = score < target ? 1 : 0;
}

await main();
