import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile, type CompileOptions, type CompileSummary } from '../../src/compiler.js';
import { readPlan, type Plan } from '../../src/runtime/plan.js';
import { temporaryFolder } from '../support/temporary.js';

const root = path.join(import.meta.dirname, '../..');
const golden = (file: string): string => path.join(root, 'test/golden', file);
const stories260k = path.join(root, 'examples/stories260k');

interface Build {
  readonly summary: CompileSummary;
  readonly text: string;
  readonly plan: Plan;
  /** CPU time, as other test files share the machine. */
  readonly cpuMs: number;
}

type Options = Omit<CompileOptions, 'model' | 'out'>;

const builds = new Map<string, Promise<Build>>();

/** A model of this repository, compiled once. */
function build(model: string, options: Options): Promise<Build> {
  const key = JSON.stringify([model, options]);
  const known = builds.get(key) ?? buildAnew(model, options);
  builds.set(key, known);
  return known;
}

async function buildAnew(model: string, options: Options): Promise<Build> {
  const out = temporaryFolder();
  const start = process.cpuUsage();
  const summary = await compile({ model: path.join(root, 'models', `${model}.graph.ts`), out, ...options });
  const { user, system } = process.cpuUsage(start);
  if (!summary) throw new Error('nothing was built');
  return {
    summary,
    text: readFileSync(path.join(out, 'kernels.metal'), 'utf8'),
    plan: readPlan(out),
    cpuMs: (user + system) / 1000,
  };
}

const math = 'exp|exp2|log|sqrt|rsqrt|sin|cos|tanh|pow|fma|fabs|abs|min|max|clamp|floor|ceil|round|select';

/** What holds of every kernels.metal. */
function expectSoundText({ text, plan }: Build): void {
  const names = plan.kernels.map((kernel) => kernel.name);
  expect(new Set(names).size, 'names are unique').toBe(names.length);
  for (const name of names) expect(name).toMatch(/^[a-z][a-z0-9_]*$/);
  const written = [...text.matchAll(/^kernel void (\w+)\(\n([^)]*(?:\[\[[^\]]*\]\][^)]*)*)\n\) \{$/gm)];
  expect(written.map(([, name]) => name)).toEqual(names);
  for (const kernel of plan.kernels) {
    for (const kind of ['buffer', 'threadgroup'] as const) {
      const indices = kernel.arguments.flatMap((argument) =>
        argument.kind === kind ? [argument.index] : [],
      );
      expect(indices, `${kind} arguments of ${kernel.name}`).toEqual(indices.map((_, i) => i));
      expect(indices.length).toBeLessThanOrEqual(31);
    }
  }
  const code = text.replaceAll(/\/\/.*$/gm, '');
  // A pointer or a reference without an address space is no Metal.
  const pointers = [...code.matchAll(/([\w ]*)\b(?:float|half|uint|int|ushort|uchar|Step)\d?[*&] /g)];
  expect(pointers.length).toBeGreaterThan(names.length);
  for (const [whole, before = ''] of pointers)
    expect(before.trim(), whole).toMatch(
      /\b(device|device const|constant|threadgroup|threadgroup const|thread|thread const)$/,
    );
  expect(new RegExp(`(?<![:\\w])(?:${math})\\(`).exec(code), 'math without metal::').toBeNull();
  expect(/\bstd::|\bdouble\b/.exec(code), 'not Metal').toBeNull();
  expect(/[ \t]+$/m.exec(text), 'trailing space').toBeNull();
  expect(/\n\n\n/.exec(text), 'two blank lines').toBeNull();
  expect(/\{\{|\}\}(?!\})|undefined|NaN|\[object/.exec(text), 'a template left something open').toBeNull();
  for (const line of text.split('\n')) expect(line.length, line).toBeLessThanOrEqual(160);
}

/** The figures of a summary that do not depend on the machine. */
function figures({ nodes, kernels, dispatchesPerLayer, entries, parameters }: CompileSummary): unknown {
  return { parameters, nodes, kernels, dispatchesPerLayer, entries };
}

describe('golden kernels', () => {
  it.each(['cpu', 'metal'] as const)('stories260k for %s', async (target) => {
    const built = await build('llama', { weights: stories260k, target });
    expectSoundText(built);
    await expect(built.text).toMatchFileSnapshot(golden(`stories260k.${target}.metal`));
  });

  it('phi4 for metal', async () => {
    const built = await build('phi4', { target: 'metal' });
    expectSoundText(built);
    await expect(built.text).toMatchFileSnapshot(golden('phi4.metal.metal'));
    expect(Math.min(built.summary.ms, built.cpuMs), 'compiles within 5 s').toBeLessThan(5000);
  });
});

describe('dispatches', () => {
  it.each([
    // Parts of long contexts are combined once, not by every threadgroup of the product that follows.
    ['phi4 for metal', 'phi4', { target: 'metal' }, 6],
    ['phi4 for cpu', 'phi4', { target: 'cpu' }, 5],
    ['llama for metal', 'llama', { target: 'metal' }, 6],
    ['llama for cpu', 'llama', { target: 'cpu' }, 5],
    ['stories260k for metal', 'llama', { weights: stories260k, target: 'metal' }, 5],
    ['stories260k for cpu', 'llama', { weights: stories260k, target: 'cpu' }, 5],
  ] as const)('of %s are few', async (_, model, options, perLayer) => {
    const { summary, plan } = await build(model, options);
    const { decode, prefill, score } = summary.entries;
    expect(decode.dispatchesPerLayer).toBe(perLayer);
    expect(decode.dispatchesOutside).toBeLessThanOrEqual(4);
    for (const entry of [prefill, score]) {
      expect(entry.dispatchesPerLayer).toBeLessThanOrEqual(10);
      expect(entry.dispatchesOutside).toBeLessThanOrEqual(4);
    }
    const layers = plan.state.length / 2;
    expect(decode.dispatches).toBe(layers * perLayer + decode.dispatchesOutside);
  });
});

describe('figures', () => {
  it('phi4 for metal', async () => {
    const { summary } = await build('phi4', { target: 'metal' });
    expect(figures(summary)).toMatchInlineSnapshot(`
      {
        "dispatchesPerLayer": 6,
        "entries": {
          "decode": {
            "barriers": 243,
            "dispatches": 244,
            "dispatchesOutside": 4,
            "dispatchesPerLayer": 6,
            "pool": {
              "bytes": 706560,
              "lowerBound": 706560,
              "optimal": true,
            },
          },
          "prefill": {
            "barriers": 282,
            "dispatches": 283,
            "dispatchesOutside": 4,
            "dispatchesPerLayer": 7,
            "pool": {
              "bytes": 7208960,
              "lowerBound": 7208960,
              "optimal": true,
            },
          },
          "score": {
            "barriers": 282,
            "dispatches": 283,
            "dispatchesOutside": 3,
            "dispatchesPerLayer": 7,
            "pool": {
              "bytes": 7208960,
              "lowerBound": 7208960,
              "optimal": true,
            },
          },
        },
        "kernels": 19,
        "nodes": 1128,
        "parameters": 14659507200,
      }
    `);
  });

  it('llama for metal, Llama 2 7B', async () => {
    const { summary } = await build('llama', { target: 'metal' });
    expect(figures(summary)).toMatchInlineSnapshot(`
      {
        "dispatchesPerLayer": 6,
        "entries": {
          "decode": {
            "barriers": 195,
            "dispatches": 196,
            "dispatchesOutside": 4,
            "dispatchesPerLayer": 6,
            "pool": {
              "bytes": 299008,
              "lowerBound": 299008,
              "optimal": true,
            },
          },
          "prefill": {
            "barriers": 226,
            "dispatches": 227,
            "dispatchesOutside": 4,
            "dispatchesPerLayer": 7,
            "pool": {
              "bytes": 4915200,
              "lowerBound": 4915200,
              "optimal": true,
            },
          },
          "score": {
            "barriers": 226,
            "dispatches": 227,
            "dispatchesOutside": 3,
            "dispatchesPerLayer": 7,
            "pool": {
              "bytes": 4915200,
              "lowerBound": 4915200,
              "optimal": true,
            },
          },
        },
        "kernels": 19,
        "nodes": 936,
        "parameters": 6738415616,
      }
    `);
  });

  it('stories260k for cpu', async () => {
    const { summary } = await build('llama', { weights: stories260k, target: 'cpu' });
    expect(figures(summary)).toMatchInlineSnapshot(`
      {
        "dispatchesPerLayer": 5,
        "entries": {
          "decode": {
            "barriers": 27,
            "dispatches": 28,
            "dispatchesOutside": 3,
            "dispatchesPerLayer": 5,
            "pool": {
              "bytes": 960,
              "lowerBound": 960,
              "optimal": true,
            },
          },
          "prefill": {
            "barriers": 27,
            "dispatches": 28,
            "dispatchesOutside": 3,
            "dispatchesPerLayer": 5,
            "pool": {
              "bytes": 60416,
              "lowerBound": 60416,
              "optimal": true,
            },
          },
          "score": {
            "barriers": 26,
            "dispatches": 27,
            "dispatchesOutside": 2,
            "dispatchesPerLayer": 5,
            "pool": {
              "bytes": 60416,
              "lowerBound": 60416,
              "optimal": true,
            },
          },
        },
        "kernels": 16,
        "nodes": 152,
        "parameters": 260032,
      }
    `);
  });
});
