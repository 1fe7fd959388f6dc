import { checkName } from '../diagnostic.js';
import type { Graph } from '../ir/graph.js';
import { formatGraph } from '../ir/text.js';
import { verifyGraph } from '../ir/verify.js';
import type { Entry, EntryPass, PassContext } from './entry.js';
import { foldConstants } from './fold-constants.js';
import { fuseLayers } from './fuse-layers.js';
import { insertKvCache, type CacheOptions } from './insert-kv-cache.js';
import { narrowLast } from './narrow-last.js';
import { planPool } from './plan-pool.js';
import { schedule } from './schedule.js';
import { shareSubexpressions } from './share-subexpressions.js';
import { splitAttention } from './split-attention.js';
import { splitSample } from './split-sample.js';
import { formatEntry } from './text.js';
import { verifyEntry } from './verify.js';

/**
 * What happens to each entry point, in order, once insert-kv-cache has made them from the model. Folding makes alike
 * what was written differently, so sharing comes after it; nothing that is shared can be folded again. Narrowing comes
 * after both: of two equal values it could take the last row of one and leave the other whole.
 */
export const entryPasses: readonly EntryPass[] = [
  foldConstants,
  shareSubexpressions,
  narrowLast,
  splitAttention,
  splitSample,
  fuseLayers,
  schedule,
  planPool,
];

/** The names `--dump`, `--stop-after` and `--stage` take; `load` is the graph as the user wrote it. */
export const stageNames: readonly string[] = [
  'load',
  'insert-kv-cache',
  ...entryPasses.map((pass) => pass.name),
];

/**
 * Called right after each stage. `text` gives what there is then, or one entry point of it: the model's graph before
 * insert-kv-cache, which every entry point is made from.
 */
export type OnStage = (stage: string, text: (entry?: string) => string) => void;

export interface PipelineOptions extends CacheOptions, PassContext {
  readonly onStage?: OnStage | undefined;
  /** The last stage to run. */
  readonly stopAfter?: string | undefined;
}

/** Checks the name of a stage given by the user. */
export function checkStage(name: string): void {
  checkName('pass', 'passes', name, stageNames);
}

/** Runs every pass, verifying after each; undefined when `stopAfter` ends it early. */
export function runPasses(graph: Graph, options: PipelineOptions): readonly Entry[] | undefined {
  const { target, fuse, onStage = () => undefined, stopAfter } = options;
  verifyGraph(graph, 'load');
  onStage('load', () => formatGraph(graph));
  if (stopAfter === 'load') return undefined;
  const program = insertKvCache(graph, { ...options, kv: options.kv ?? target.kv });
  let entries: readonly Entry[] = [...program.entries].map(([name, entryGraph]) => ({
    name,
    graph: entryGraph,
    kernels: [],
    epochs: new Map(),
    pool: undefined,
  }));
  const finish = (stage: string): boolean => {
    for (const entry of entries) verifyEntry(entry, stage, target.alignment);
    onStage(stage, (only) => {
      const shown = entries.filter(({ name }) => only === undefined || name === only);
      return shown.map(formatEntry).join('\n');
    });
    return stage === stopAfter;
  };
  if (finish('insert-kv-cache')) return undefined;
  for (const pass of entryPasses) {
    entries = entries.map((entry) => pass.run(entry, { target, fuse }));
    if (finish(pass.name)) return undefined;
  }
  return entries;
}
