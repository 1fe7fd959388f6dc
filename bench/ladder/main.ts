/**
 * What `upgc bench ladder --json FILE` has written, as tables for docs/performance.md and as a plot of all files:
 * `npm run bench:ladder -- bench/results/ladder-cpu.json … [--svg FILE]`
 */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { ladderRows, ladderSchema, median, type Ladder } from '#dist/cli/bench-ladder.js';
import { plot, type Series } from './plot.js';

function table(ladder: Ladder): string {
  const [head = [], ...rows] = ladderRows(ladder);
  return [head, head.map((_, i) => (i < 2 ? '---' : '---:')), ...rows]
    .map((row) => `| ${row.join(' | ')} |\n`)
    .join('');
}

function seriesOf({ model, weights, device, interpreter, rungs }: Ladder): Series {
  const [low, middle, high] = [interpreter.ms, interpreter.ms, interpreter.ms];
  return {
    name: `${weights.startsWith('random:') ? model : path.basename(weights)} on ${device}`,
    ranges: [
      { low, middle, high },
      ...rungs.map(({ ms }) => ({ low: Math.min(...ms), middle: median(ms), high: Math.max(...ms) })),
    ],
  };
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { svg: { type: 'string' } },
});
const ladders = positionals.map((file) => ladderSchema.parse(JSON.parse(readFileSync(file, 'utf8'))));
const [first] = ladders;
if (!first) throw new Error('which ladder? npm run bench:ladder -- FILE.json');
process.stdout.write(ladders.map(table).join('\n'));
const labels = ['0  reference interpreter', ...first.rungs.map(({ rung, what }) => `${rung}  ${what}`)];
if (values.svg !== undefined) writeFileSync(values.svg, plot(labels, ladders.map(seriesOf), 'ms a token'));
