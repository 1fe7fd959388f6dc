import { expect } from 'vitest';
import { emit } from '../../src/codegen/emit.js';
import { makePlan } from '../../src/codegen/plan.js';
import { compileGraph } from '../../src/compiler.js';
import type { Graph } from '../../src/ir/graph.js';
import { parseGraph } from '../../src/ir/parse.js';
import { formatGraph } from '../../src/ir/text.js';
import type { Entry } from '../../src/passes/entry.js';
import type { CacheOptions } from '../../src/passes/insert-kv-cache.js';
import { parseEntries } from '../../src/passes/parse.js';
import { entryPasses, runPasses, stageNames } from '../../src/passes/pipeline.js';
import type { Target } from '../../src/passes/target.js';
import { formatEntry } from '../../src/passes/text.js';

interface Options extends CacheOptions {
  readonly target: Target;
}

/** A dump less its comments, which are not read back. */
export function withoutComments(text: string): string {
  return text.replaceAll(/ {3}\/\/[^\n]*/g, '');
}

/**
 * Compiles a graph, reading back the text of every stage: it must print as it did, the passes that are left must come
 * to the same from what was read, and the code generator to the same build. Returns the texts.
 */
export function expectRoundTrips(graph: Graph, options: Options): ReadonlyMap<string, string> {
  const { target } = options;
  const texts = new Map<string, string>();
  const compiled = compileGraph(graph, { ...options, onStage: (stage, text) => texts.set(stage, text()) });
  if (!compiled) throw new Error('nothing was compiled');
  expect([...texts.keys()]).toEqual(stageNames);
  const [load = '', ...others] = texts.values();
  const last = withoutComments(others.at(-1) ?? '');
  const model = parseGraph(load);
  expect(withoutComments(formatGraph(model)), 'load').toBe(withoutComments(load));
  expect(printed(runPasses(model, options) ?? []), 'what comes of load').toBe(last);
  let entries: readonly Entry[] = [];
  for (const [i, text] of others.entries()) {
    entries = parseEntries(text);
    expect(printed(entries), stageNames[i + 1]).toBe(withoutComments(text));
    let rest = entries;
    for (const pass of entryPasses.slice(i)) rest = rest.map((entry) => pass.run(entry, { target }));
    expect(printed(rest), `what comes of ${stageNames[i + 1] ?? ''}`).toBe(last);
  }
  const emitted = emit(graph.name, entries, target);
  const made = { model: graph.name, target, bosToken: null, eosTokens: [], packed: false };
  expect(emitted.text).toBe(compiled.kernels);
  expect(makePlan(entries, emitted, made).plan).toEqual(compiled.plan);
  return texts;
}

const printed = (entries: readonly Entry[]): string => withoutComments(entries.map(formatEntry).join('\n'));
