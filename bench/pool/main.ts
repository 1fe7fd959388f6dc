/**
 * Pool sizes of upgc's planner beside those of common allocators: on every entry of every model, and on the MiniMalloc
 * problems. `npm run bench:pool -- [--json | --markdown]`
 */
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { compileGraph, targets } from '#dist/compiler.js';
import { loadModel } from '#dist/ir/load.js';
import { slotsOf } from '#dist/passes/lifetimes.js';
import { placeBuffers, type PlaceOptions } from '#dist/passes/pool/place.js';
import { bestFit, firstFit, greedyBySize, noReuse, type Buffer } from './baselines.js';
import { markdownTable, textTable, type Row } from './table.js';

interface PoolProblem {
  readonly name: string;
  readonly buffers: readonly Buffer[];
  readonly options: PlaceOptions;
}

const miniMallocFolder = 'bench/data/minimalloc';

/** Every entry of every model of models/, with its defaults. */
function modelProblems(): PoolProblem[] {
  const files = readdirSync('models').filter((file) => file.endsWith('.graph.ts'));
  return files.flatMap((file) => {
    const { graph, context } = loadModel(path.join('models', file)).build({});
    return Object.values(targets).flatMap((target) => {
      const entries = compileGraph(graph, { target, context })?.entries ?? [];
      return entries.map((entry) => ({
        name: `${graph.name} ${entry.name}, ${target.name}`,
        buffers: slotsOf(entry, target.alignment).map(({ bytes, firstEpoch, lastEpoch }) => ({
          bytes,
          firstEpoch,
          lastEpoch,
        })),
        options: {},
      }));
    });
  });
}

/** Each is to fit the capacity that its file is named for, `A.1048576.csv`. */
function miniMallocProblems(): PoolProblem[] {
  const files = readdirSync(miniMallocFolder).filter((file) => file.endsWith('.csv'));
  return files.sort().map((file) => {
    const [name = '', capacity] = file.split('.');
    const [, ...lines] = readFileSync(path.join(miniMallocFolder, file), 'utf8').trim().split('\n');
    const buffers = lines.map((line) => {
      const [, lower = 0, upper = 0, bytes = 0] = line.split(',').map(Number);
      return { bytes, firstEpoch: lower, lastEpoch: upper - 1 };
    });
    return { name: `MiniMalloc ${name}`, buffers, options: { capacity: Number(capacity), steps: 1e9 } };
  });
}

function measure({ name, buffers, options }: PoolProblem): Row {
  // Processor time, which other processes do not lengthen as they do the wall's.
  const started = process.cpuUsage();
  const { bytes, lowerBound, optimal } = placeBuffers(buffers, options);
  const ms = process.cpuUsage(started).user / 1000;
  return {
    problem: name,
    buffers: buffers.length,
    lowerBound,
    bytes,
    optimal,
    ms,
    greedyBySize: greedyBySize(buffers),
    bestFit: bestFit(buffers),
    firstFit: firstFit(buffers),
    noReuse: noReuse(buffers),
  };
}

const { values: flags } = parseArgs({
  options: { json: { type: 'boolean' }, markdown: { type: 'boolean' } },
});
const problems = [...modelProblems(), ...miniMallocProblems()];
const rows = problems.map((problem, i) => {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${i + 1}/${problems.length} ${problem.name}`);
  return measure(problem);
});
if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
if (flags.json) process.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
else process.stdout.write(flags.markdown ? markdownTable(rows) : textTable(rows));
