import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { withoutComments } from '../support/round-trip.js';
import { sharedFolder, temporaryFolder } from '../support/temporary.js';
import { upgc, upgcWith, type Result } from '../support/upgc.js';

const llama = ['models/llama.graph.ts', '--weights', 'examples/stories260k'];
const anyNumber: unknown = expect.any(Number);
let build: string;

beforeAll(async () => {
  build = path.join(sharedFolder(), 'build');
  expect(await upgc('compile', ...llama, '--out', build)).toMatchObject({ code: 0 });
});

describe('upgc', () => {
  it.each([[[]], [['check']], [['compile']], [['dump']], [['run']], [['eval']], [['bench', 'ladder']]])(
    'explains itself: %s --help',
    async (command) => {
      const { code, stdout } = await upgc(...command, '--help');
      expect(code).toBe(0);
      expect(stdout).toMatchSnapshot();
    },
  );

  it('fails with usage on what it does not know', async () => {
    expect(await upgc('complie')).toMatchObject({ code: 1, stdout: '' });
    expect(await upgc('run')).toMatchObject({ code: 1, stdout: '' });
    expect(await upgc('compile', ...llama, '--context', 'many')).toMatchObject({ code: 1, stdout: '' });
    expect(await upgc('compile', ...llama, '--target', 'tpu')).toMatchObject({ code: 1, stdout: '' });
  });

  it('prints its version', async () => {
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
    expect(await upgc('--version')).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  });
});

describe('upgc does not load TypeScript', () => {
  /** Whether a command loads a package; the command line must be right. */
  async function loads(name: string, ...args: readonly string[]): Promise<boolean> {
    const hook = path.join(temporaryFolder(), 'hook.cjs');
    const found = `Object.keys(require.cache).some((file) => file.includes('/node_modules/${name}/'))`;
    writeFileSync(
      hook,
      `process.on('exit', () => require('node:fs').writeSync(2, \`loaded: \${${found}}\\n\`));`,
    );
    const { code, stderr } = await upgcWith(['--require', hook], ...args);
    expect(code).toBe(0);
    return stderr.includes('loaded: true\n');
  }

  it.each([
    [['--version']],
    [['--help']],
    [['help', 'compile']],
    [['compile', '--help']],
    [['run', '--help']],
    [['check', 'test/check/valid/atomics.metal']],
  ])('for %j', async (args) => {
    expect(await loads('ts-morph', ...args)).toBe(false);
  });

  it('to run a build; it does to compile one', async () => {
    expect(await loads('ts-morph', 'run', build, '--max-tokens', '2')).toBe(false);
    expect(await loads('handlebars', 'run', build, '--max-tokens', '2')).toBe(false);
    expect(await loads('ts-morph', 'dump', llama[0] ?? '', '--stage', 'load')).toBe(true);
  });
});

describe('upgc compile', () => {
  it('writes a whole build folder and nothing else', () => {
    expect(readdirSync(build).sort()).toEqual([
      'kernels.metal',
      'plan.json',
      'tokenizer.json',
      'tokenizer_config.json',
      'weights.bin',
    ]);
  });

  it('prints its summary as JSON', async () => {
    const { code, stdout, stderr } = await upgc(
      'compile',
      ...llama,
      '--json',
      '--target',
      'metal',
      '--out',
      temporaryFolder(),
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const summary = JSON.parse(stdout) as Record<string, unknown>;
    const entry = {
      dispatches: 28,
      dispatchesPerLayer: 5,
      dispatchesOutside: 3,
      barriers: anyNumber,
      pool: { bytes: anyNumber, lowerBound: anyNumber, optimal: true },
    };
    expect(summary).toMatchObject({
      model: 'llama',
      target: 'metal',
      nodes: anyNumber,
      kernels: anyNumber,
      dispatchesPerLayer: 5,
      // The norms are kernels of their own where chunks are multiplied in tiles.
      entries: { decode: entry, prefill: { ...entry, dispatches: 37, dispatchesPerLayer: 7 } },
      kvBytes: 2 * 5 * 512 * 32 * 4,
      weightBytes: 260032 * 4,
      totalBytes: anyNumber,
      ms: anyNumber,
    });
  });

  it('prints its summary for people', async () => {
    const { stdout } = await upgc('compile', ...llama, '--target', 'metal', '--out', temporaryFolder());
    expect(stdout).toMatch(/^decode {4}28 dispatches: 5 a layer, 3 outside; 27 barriers, pool /m);
    expect(stdout).toMatch(/^prefill {3}37 dispatches: 7 a layer, 3 outside; 36 barriers, pool /m);
  });

  it('dumps a pass to stdout and keeps --json apart from it', async () => {
    const dump = await upgc('compile', ...llama, '--dump', 'fuse-layers', '--stop-after', 'fuse-layers');
    expect(dump).toMatchObject({ code: 0, stderr: '' });
    expect(dump.stdout).toContain('kernel k0 embed {');
    const both = await upgc('compile', ...llama, '--dump', 'load', '--json', '--out', temporaryFolder());
    expect(both.stderr).toContain('graph llama {');
    expect(JSON.parse(both.stdout)).toMatchObject({ model: 'llama' });
  });

  it('writes nothing when it dumps without --out', async () => {
    const before = existsSync('build/llama');
    const { code, stderr } = await upgc(
      'compile',
      'models/llama.graph.ts',
      '--context',
      '16',
      '--dump',
      'load',
    );
    expect(code).toBe(0);
    expect(stderr).toContain('not written');
    expect(existsSync('build/llama')).toBe(before);
  });

  it('writes nothing when it stops early or fails', async () => {
    const out = path.join(temporaryFolder(), 'build');
    expect(await upgc('compile', ...llama, '--stop-after', 'load', '--out', out)).toMatchObject({
      code: 0,
      stdout: '',
    });
    const failed = await upgc('compile', ...llama, '--dump', 'fuse-layer', '--out', out);
    expect(failed).toEqual({
      code: 1,
      stdout: '',
      stderr:
        "error: there is no pass 'fuse-layer'; did you mean 'fuse-layers'?\n" +
        ' note: passes: load, insert-kv-cache, fold-constants, share-subexpressions, narrow-last, split-attention, split-sample, fuse-layers, schedule, plan-pool\n',
    });
    expect(existsSync(out)).toBe(false);
  });
});

describe('upgc dump', () => {
  it('prints the last stage, of every entry point', async () => {
    const { code, stdout, stderr } = await upgc('dump', ...llama);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.match(/^entry .*$/gm)).toEqual([
      'entry decode of llama (T = 1, C = 512) {',
      'entry prefill of llama (T = 64, C = 512) {',
      'entry score of llama (T = 64, C = 512) {',
    ]);
    expect(stdout).toMatch(/^ {4}store %embed to pool \[\d+, \d+\) in epochs 0 to \d+ {3}\/\/ border: /m);
  });

  it('prints a stage of an entry point, for the options that compile takes', async () => {
    const options = ['--stage', 'narrow-last', '--entry', 'prefill', '--chunk', '8', '--context', '32'];
    const { code, stdout } = await upgc('dump', 'models/llama.graph.ts', ...options);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^entry prefill of llama \(T = 8, C = 32\) \{\n/);
    expect(stdout.match(/^entry/gm)).toHaveLength(1);
    expect(stdout).toContain(' = last ');
    expect(stdout).not.toContain('kernel');
    const load = await upgc('dump', 'models/llama.graph.ts', '--stage', 'load', '--entry', 'prefill');
    expect(load.stdout).toMatch(/^graph llama \{\n/);
  });

  it('prints what each pass changed', async () => {
    const { code, stdout } = await upgc('dump', ...llama, '--diff', '--entry', 'decode');
    expect(code).toBe(0);
    expect(stdout.match(/^(---|\+\+\+) .*|.*\(unchanged\)$/gm)).toEqual([
      '--- decode after load',
      '+++ decode after insert-kv-cache',
      'decode after fold-constants (unchanged)',
      'decode after share-subexpressions (unchanged)',
      'decode after narrow-last (unchanged)',
      'decode after split-attention (unchanged)',
      'decode after split-sample (unchanged)',
      '--- decode after split-sample',
      '+++ decode after fuse-layers',
      '--- decode after fuse-layers',
      '+++ decode after schedule',
      '--- decode after schedule',
      '+++ decode after plan-pool',
    ]);
    const one = await upgc('dump', ...llama, '--diff', '--stage', 'schedule', '--entry', 'decode');
    expect(stdout).toContain(one.stdout);
    // Nothing but barriers, as the kernels were in order.
    const changed = one.stdout.split('\n').filter((line) => /^[+-](?![+-])/.test(line));
    expect(changed.length).toBeGreaterThan(20);
    for (const line of changed) expect(line).toMatch(/^\+ {2}(epoch 0|barrier epoch \d+)$/);
  });

  it('checks a text that it printed, and prints it without the places it came from', async () => {
    const file = path.join(temporaryFolder(), 'decode.ir');
    const { stdout } = await upgc('dump', ...llama, '--entry', 'decode');
    writeFileSync(file, stdout);
    const again = await upgc('dump', file);
    expect(again).toMatchObject({ code: 0, stderr: '' });
    expect(withoutComments(again.stdout)).toBe(withoutComments(stdout));
    expect(stdout).toContain('// llama.graph.ts:');
    expect(again.stdout).not.toContain('// llama.graph.ts:');
    writeFileSync(file, stdout.replace(/in epochs 0 to \d+/, 'in epochs 0 to 0'));
    const kept = await upgc('dump', file);
    expect(kept).toMatchObject({ code: 1, stdout: '' });
    expect(kept.stderr).toContain('entry decode: a value has its buffer in epochs 0 to 0 only');
    writeFileSync(file, stdout.replace('= silu', '= sillu'));
    const unknown = await upgc('dump', file);
    expect(unknown).toMatchObject({ code: 1, stdout: '' });
    expect(unknown.stderr).toMatch(
      /^error: there is no op 'sillu'; did you mean 'silu'\?\n.*decode\.ir:\d+:\d+\n.* %silu = sillu /,
    );
  });

  it('generates the same on several OS threads, in random order, and while every access is checked', async () => {
    const generate = async (...flags: string[]) =>
      (await upgc('run', build, '--greedy', '--max-tokens', '5', ...flags)).stdout;
    const expected = await generate();
    expect(expected.trim()).not.toBe('');
    expect(await generate('--threads', '2', '--shuffle', '1', '--sanitize')).toBe(expected);
  });

  it('fails with one clear message', async () => {
    const failed = async (...args: readonly string[]): Promise<string> => {
      const { code, stdout, stderr } = await upgc('dump', ...args);
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      return stderr;
    };
    expect([
      (await failed(...llama, '--stage', 'shedule')).split('\n')[0],
      await failed(...llama, '--entry', 'prefil'),
      await failed(...llama, '--diff', '--stage', 'load'),
      await failed('nothing.ir'),
      await failed('nothing.ir', '--diff'),
    ]).toMatchInlineSnapshot(`
      [
        "error: there is no pass 'shedule'; did you mean 'schedule'?",
        "error: there is no entry 'prefil'; did you mean 'prefill'?
       note: entries: decode, prefill, score
      ",
        "error: no pass comes before load, so it changed nothing
       note: leave --diff out
      ",
        "error: cannot read nothing.ir: no such file or folder
      ",
        "error: nothing.ir is printed whole
       note: leave --stage, --entry and --diff out
      ",
      ]
    `);
  });
});

describe('upgc run', () => {
  const greedyText = readFileSync('test/fixtures/stories260k/greedy.txt', 'utf8');

  it('streams text to stdout and statistics to stderr', async () => {
    const { code, stdout, stderr } = await upgc(
      'run',
      build,
      '--greedy',
      '--max-tokens',
      '22',
      '--device',
      'cpu',
    );
    expect(code).toBe(0);
    expect(greedyText.startsWith(stdout.trimEnd())).toBe(true);
    expect(stdout.length).toBeGreaterThan(30);
    expect(stderr).toMatch(/^prefill 1 tokens, [\d.]+ tokens\/s; decode 21 tokens, [\d.]+ tokens\/s\n$/);
  });

  it('prints JSON', async () => {
    const { code, stdout } = await upgc(
      'run',
      build,
      '--greedy',
      '--max-tokens',
      '5',
      '--tokens',
      '1,403,407',
      '--json',
    );
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      tokens: [261, 378, 432, 383, 286],
      text: ' a time, there was',
      prefill: { tokens: 3, tokensPerSecond: anyNumber },
      decode: { tokens: 4, tokensPerSecond: anyNumber },
      stats: {
        deviceAllocations: 0,
        // Steps that follow each other without the host share a submission, as many as the machine's speed suggests.
        submissions: expect.toSatisfy((n: number) => n >= 2 && n <= 5) as unknown,
        dispatchesPerStep: { decode: 28, prefill: 28, score: 27 },
        bytes: { pool: anyNumber, state: 655360, weights: anyNumber },
      },
    });
  });

  it('goes on from a prompt', async () => {
    const { stdout } = await upgc(
      'run',
      build,
      '--greedy',
      '--max-tokens',
      '16',
      '--prompt',
      'Once upon a time',
    );
    expect(stdout.length).toBeGreaterThan(30);
    expect(greedyText.startsWith(`Once upon a time${stdout.trimEnd()}`)).toBe(true);
  });

  it('samples the same text from the same seed', async () => {
    const sample = (seed: string): Promise<Result> =>
      upgc('run', build, '--max-tokens', '30', '--seed', seed);
    const [a, b, c] = await Promise.all([sample('7'), sample('7'), sample('8')]);
    expect(a.stdout).toBe(b.stdout);
    expect(a.stdout).not.toBe(c.stdout);
  });

  it('draws among the ids that the filters leave', async () => {
    const text = async (...flags: readonly string[]): Promise<string> => {
      const { code, stdout } = await upgc('run', build, '--max-tokens', '30', '--seed', '7', ...flags);
      expect(code).toBe(0);
      return stdout;
    };
    const greedy = await text('--greedy');
    const [all, ...one] = await Promise.all(
      [[], ['--top-k', '1'], ['--top-p', '0.000001'], ['--min-p', '1'], ['--temperature', '0']].map((flags) =>
        text(...flags),
      ),
    );
    expect(one).toEqual([greedy, greedy, greedy, greedy]);
    expect(all).not.toBe(greedy);
    expect(await text('--top-k', '0', '--top-p', '1', '--min-p', '0', '--temperature', '1')).toBe(all);
  });

  it.each([
    ['--top-k', '-1'],
    ['--top-k', 'many'],
    ['--top-p', '0'],
    ['--top-p', '2'],
    ['--min-p', '1.5'],
    ['--seed', '4294967296'],
    ['--temperature', 'warm'],
  ])('refuses %s %s', async (flag, value) => {
    const { code, stdout, stderr } = await upgc('run', build, flag, value);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr.split('\n').slice(0, 2).join('\n')).toMatchSnapshot();
  });

  it('generates the same on several OS threads, in random order, and while every access is checked', async () => {
    const generate = async (...flags: string[]) =>
      (await upgc('run', build, '--greedy', '--max-tokens', '5', ...flags)).stdout;
    const expected = await generate();
    expect(expected.trim()).not.toBe('');
    expect(await generate('--threads', '2', '--shuffle', '1', '--sanitize')).toBe(expected);
  });

  it('fails with one clear message', async () => {
    expect(await upgc('run', build, '--device', 'tpu')).toEqual({
      code: 1,
      stdout: '',
      stderr: "error: there is no device 'tpu'\n note: devices of this build of upgc: cpu, cpu:simt\n",
    });
    expect(await upgc('run', build, '--device', 'cpu:simt')).toEqual({
      code: 1,
      stdout: '',
      stderr:
        "error: cpu:simt runs simdgroups of 32 lanes; this build's have one\n" +
        ' note: compile with --target metal, or run on the device cpu\n',
    });
    expect(await upgc('run', build, '--prompt', 'a', '--tokens', '1')).toMatchObject({ code: 1, stdout: '' });
    expect(await upgc('run', path.join(build, 'nothing'))).toMatchObject({ code: 1, stdout: '' });
  });
});

describe('upgc eval', () => {
  let text: string;
  beforeAll(() => {
    text = path.join(sharedFolder(), 'text.txt');
    writeFileSync(text, 'Once upon a time, there was a little girl named Lily. She loved to play outside.');
  });

  it('prints how well a build predicts a text', async () => {
    const { code, stdout, stderr } = await upgc('eval', build, '--text', text, '--context', '16', '--json');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const result = JSON.parse(stdout) as Record<string, number>;
    expect(result).toEqual({
      nll: anyNumber,
      perplexity: anyNumber,
      tokens: anyNumber,
      tokensPerSecond: anyNumber,
    });
    expect(result['perplexity']).toBeLessThan(8);
    expect((await upgc('eval', build, '--text', text, '--context', '16')).stdout).toContain(
      `nll ${result['nll']?.toFixed(4)} nats, perplexity ${result['perplexity']?.toFixed(3)}; ${result['tokens']} tokens, `,
    );
  });

  it('prints how far a build is from another', async () => {
    const out = path.join(sharedFolder(), 'quantised');
    const weights = 'test/fixtures/gguf/stories260k-Q4_0.gguf';
    expect(await upgc('compile', 'models/llama.graph.ts', '--weights', weights, '--out', out)).toMatchObject({
      code: 0,
    });
    const { code, stdout } = await upgc('eval', '--compare', build, out, '--text', text, '--json');
    expect(code).toBe(0);
    const result = JSON.parse(stdout) as Record<string, number>;
    expect(result['klDivergence']).toBeGreaterThan(0.001);
    expect(result['klDivergence']).toBeLessThan(0.3);
    expect(result['top1Agreement']).toBeGreaterThan(0.7);
    expect((await upgc('eval', '--compare', build, out, '--text', text)).stdout).toMatch(
      /^reference {2}nll .*\nbuild {6}nll .*\nKL divergence [\d.]+ nats, top-1 agreement [\d.]+ %\n$/,
    );
  });

  it('fails with one clear message', async () => {
    const failed = async (...args: readonly string[]): Promise<string> => {
      const { code, stdout, stderr } = await upgc('eval', ...args);
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      return stderr;
    };
    expect(await failed(build)).toContain("required option '--text <file>' not specified");
    expect(await failed('--text', text)).toContain('give one build folder, or --compare with two');
    expect(await failed('--text', text, '--compare', build)).toContain('give one build folder');
    expect(await failed(build, '--text', text, '--context', '100000')).toContain(
      'a window must be of 1 to 512',
    );
    expect(await failed(build, '--text', 'absent.txt')).toContain('cannot read absent.txt');
  });
});
