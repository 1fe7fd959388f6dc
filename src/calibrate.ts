import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { writeBuild, type Build } from './build-folder.js';
import { CompilerBug, UserError } from './diagnostic.js';
import { readText, shown } from './input-file.js';
import { isOp, type Graph, type Node } from './ir/graph.js';
import type { Method } from './ir/policy.js';
import { Session } from './runtime/session.js';
import type { Checkpoint } from './weights/checkpoint.js';
import type { Importance } from './weights/pack.js';

/**
 * How much an error in each column of a matrix matters: the mean square of the element that it is multiplied with, over
 * a text. The model runs with the checkpoint's own weights on a device, in a build whose score entry also keeps the
 * operand of every product: each in a cache of one step's rows, which is read after every step.
 */

/** Tokens of a text of its own. */
export const calibrationWindow = 256;
/** Windows of a longer text are taken evenly from all of it. */
const mostWindows = 16;

/** What to keep of a step, by name, and which weights are multiplied with it. */
export interface Probe {
  readonly operand: Node;
  readonly weights: readonly string[];
}

export type Probes = ReadonlyMap<string, Probe>;

/** Refuses what no calibration can come of, before anything is compiled; the text otherwise. */
export function calibrationText(
  file: string,
  checkpoint: Checkpoint | undefined,
  methods: ReadonlyMap<string, Method>,
): string {
  if (!checkpoint)
    throw new UserError('--calibrate needs a checkpoint: other weights have nothing to say about a text', {
      notes: ['give --weights the folder of a checkpoint'],
    });
  if (![...methods.values()].includes('search'))
    throw new UserError('--calibrate has nothing to choose: no matrix is quantised by scale search', {
      notes: [
        'give --quantize as well, such as q4; what a GGUF file has quantised keeps its integers, and q8 needs no search',
      ],
    });
  if (!checkpoint.tokenizerFiles.some(({ name }) => name === 'tokenizer.json'))
    throw new UserError(`${shown(checkpoint.path)} has no tokenizer, so --calibrate cannot read a text`);
  const text = readText(file);
  if (text.trim() === '') throw new UserError(`${shown(file)} is empty: there is nothing to calibrate with`);
  return text;
}

/** The operands of all products with a weight whose scales are searched. */
export function probesOf(graph: Graph, methods: ReadonlyMap<string, Method>): Probes {
  const weights = new Map<Node, string[]>();
  for (const node of graph.nodes) {
    if (!isOp(node, 'linear')) continue;
    const [operand, matrix] = node.inputs;
    if (!operand || !matrix || !isOp(matrix, 'weight')) continue;
    const { name } = matrix.attrs;
    if (methods.get(name) === 'search') weights.set(operand, [...(weights.get(operand) ?? []), name]);
  }
  return new Map([...weights].map(([operand, names], i) => [`operand.${i}`, { operand, weights: names }]));
}

/**
 * Runs a text through a build that keeps `probes`; a weight of several products gets the sum of its operands.
 * @param beside the temporary build is made in its folder, since it is as large as the checkpoint
 */
export async function measureImportance(
  text: string,
  probes: Probes,
  { build, checkpoint, beside }: { build: Build; checkpoint: Checkpoint; beside: string },
  onProgress?: (tokensDone: number, tokensTotal: number) => void,
): Promise<Importance> {
  mkdirSync(path.dirname(beside), { recursive: true });
  const dir = mkdtempSync(path.join(path.dirname(beside), `.${path.basename(beside)}.calibration-`));
  const remove = (): void => rmSync(dir, { recursive: true, force: true });
  process.once('exit', remove);
  try {
    await writeBuild(dir, build, checkpoint, undefined);
    const session = await Session.open(dir);
    try {
      return await squaresOver(session, windowsOf(session.tokenizer?.encode(text) ?? []), probes, onProgress);
    } finally {
      session.close();
    }
  } finally {
    remove();
    process.off('exit', remove);
  }
}

function windowsOf(ids: readonly number[]): readonly (readonly number[])[] {
  const all = Math.ceil(ids.length / calibrationWindow);
  return Array.from({ length: Math.min(all, mostWindows) }, (_, i) => {
    const start = Math.floor((i * all) / Math.min(all, mostWindows)) * calibrationWindow;
    return ids.slice(start, start + calibrationWindow);
  });
}

async function squaresOver(
  session: Session,
  windows: readonly (readonly number[])[],
  probes: Probes,
  onProgress: ((tokensDone: number, tokensTotal: number) => void) | undefined,
): Promise<Importance> {
  const kept = session.plan.state.flatMap((state) => {
    const probe = probes.get(state.name);
    const columns = state.shape.slice(1).reduce((a, b) => a * b, 1);
    return probe ? [{ name: state.name, probe, sums: new Float64Array(columns) }] : [];
  });
  if (kept.length !== probes.size) throw new CompilerBug('a build lacks operands that it should keep');
  const total = windows.reduce((sum, window) => sum + window.length, 0);
  const { vocabulary } = session.plan.model;
  let done = 0;
  for (const window of windows) {
    // Sessions limit windows to the context.
    const ids = window.slice(0, session.plan.context);
    let position = 0;
    for await (const logits of session.scoreInParts(ids)) {
      const count = logits.length / vocabulary;
      for (const { name, sums } of kept) {
        const rows = session.readState(name);
        const held = rows.length / sums.length;
        for (let t = 0; t < count; t++) {
          const start = ((position + t) % held) * sums.length;
          for (let k = 0; k < sums.length; k++) sums[k] = (sums[k] ?? 0) + (rows[start + k] ?? NaN) ** 2;
        }
      }
      position += count;
      onProgress?.(done + position, total);
    }
    done += window.length;
  }
  const importance = new Map<string, Float32Array>();
  for (const { probe, sums } of kept) {
    for (const weight of probe.weights) {
      const others = importance.get(weight);
      importance.set(
        weight,
        Float32Array.from(sums, (sum, k) => sum / total + (others?.[k] ?? 0)),
      );
    }
  }
  return importance;
}
