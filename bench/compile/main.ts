/**
 * Compile time of models/phi4.graph.ts by its number of layers, without loading the model file, which is the same for
 * all. `npm run bench:compile -- [--json | --svg]`
 */
import { parseArgs } from 'node:util';
import { compileGraph, targets } from '#dist/compiler.js';
import { loadModel } from '#dist/ir/load.js';
import { plot, type Point } from './plot.js';

const layerCounts = [10, 20, 40, 80, 120, 160, 200];
const repetitions = 3;

/** The least of a few runs, in ms: what else the machine does only adds. */
function compileTime(layers: number, model: ReturnType<typeof loadModel>): number {
  const times = Array.from({ length: repetitions }, () => {
    const started = performance.now();
    const { graph, context } = model.build({ num_hidden_layers: layers });
    compileGraph(graph, { target: targets.metal, context });
    return performance.now() - started;
  });
  return Math.min(...times);
}

const { values } = parseArgs({ options: { json: { type: 'boolean' }, svg: { type: 'boolean' } } });
const model = loadModel('models/phi4.graph.ts');
compileTime(10, model);
const points: Point[] = [];
for (const layers of layerCounts) {
  points.push({ x: layers, y: compileTime(layers, model) });
  if (process.stderr.isTTY) process.stderr.write(`\r${layers} of ${Math.max(...layerCounts)} layers\x1b[K`);
}
if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
if (values.json) process.stdout.write(`${JSON.stringify(points)}\n`);
else if (values.svg) process.stdout.write(plot(points, 'layers', 'ms to compile'));
else for (const { x, y } of points) process.stdout.write(`${x} layers  ${y.toFixed(0)} ms\n`);
