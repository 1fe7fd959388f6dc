import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { checkIds, ladderSchema, median } from '../../src/cli/bench-ladder.js';
import { temporaryFolder } from '../support/temporary.js';
import { upgc } from '../support/upgc.js';

const small = ['--weights', 'examples/stories260k', '--context', '8', '--tokens', '4', '--samples', '6'];

it('climbs every rung, with the same ids on all that store their weights alike', async () => {
  const dir = temporaryFolder();
  const [json, keep] = [path.join(dir, 'ladder.json'), path.join(dir, 'builds')];
  const given = ['--target', 'cpu', '--quantize', 'q8', '--json', json, '--keep', keep];
  const { code, stdout, stderr } = await upgc('bench', 'ladder', ...small, ...given);
  expect([code, stderr]).toEqual([0, '']);
  const ladder = ladderSchema.parse(JSON.parse(readFileSync(json, 'utf8')));
  const { rungs, interpreter } = ladder;
  expect(ladder).toMatchObject({ model: 'llama', device: 'cpu', target: 'cpu', context: 8, tokens: 4 });
  expect(rungs.map(({ rung }) => rung)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  for (const { ms } of rungs) expect(ms).toHaveLength(6);
  // This model is small enough to be interpreted whole.
  expect(interpreter.operations).toBe(interpreter.of);

  const [first] = rungs;
  const ids = rungs.slice(0, 6).map((rung) => rung.ids.slice(0, 4));
  expect(new Set(ids.map(String)).size, String(ids)).toBe(1);
  expect(rungs[7]?.ids).toEqual(rungs[6]?.ids);
  for (const [wrong, like] of [
    [3, 1],
    [8, 7],
  ] as const) {
    const changed = rungs.map((each) =>
      each.rung === wrong ? { ...each, ids: each.ids.with(1, 511) } : each,
    );
    expect(() => checkIds({ ...ladder, rungs: changed })).toThrow(
      new RegExp(`^rung ${wrong} .* draws token 2 as 511, rung ${like} as `),
    );
  }

  // A rung is what it says.
  const dispatches = rungs.map((rung) => rung.dispatches);
  const [unfused = 0, fused = 0] = [dispatches[4], dispatches[5]];
  expect(fused).toBeLessThan(unfused);
  expect(rungs.map((rung) => rung.submissions)).toEqual([...dispatches.slice(0, 3), 1, 1, 1, 1, 0.25]);
  expect(rungs.map((rung) => rung.allocations > 0)).toEqual([true, ...Array<boolean>(7).fill(false)]);
  expect(rungs[6]?.weightBytes).toBeLessThan(rungs[5]?.weightBytes ?? 0);

  const lines = stdout.split('\n');
  const base = median(first?.ms ?? []);
  for (const { rung, what, ms } of rungs) {
    const line = lines.find((text) => text.startsWith(`${rung} `)) ?? '';
    expect(line).toContain(what);
    const [, low, middle, high, perSecond, ratio] =
      /\[(\S+) (\S+) (\S+)\] +(\S+) +(\S+)/.exec(line)?.map(Number) ?? [];
    const shown = [low, middle, high, perSecond, ratio];
    const wanted = [Math.min(...ms), median(ms), Math.max(...ms), 1000 / median(ms), base / median(ms)];
    // Three digits are printed.
    for (const [i, value] of wanted.entries()) expect((shown[i] ?? NaN) / value).toBeCloseTo(1, 1.9);
  }
  for (const build of ['unfused', 'fused', 'quantised'])
    expect(existsSync(path.join(keep, build, 'plan.json')), build).toBe(true);
}, 60_000);

it('needs weights', async () => {
  const { code, stdout } = await upgc('bench', 'ladder', 'models/llama.graph.ts');
  expect([code, stdout]).toEqual([1, '']);
});
