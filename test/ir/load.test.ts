import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Graph } from '../../src/ir/graph.js';
import { isLeaf } from '../../src/ir/graph.js';
import { loadModel } from '../../src/ir/load.js';
import { formatGraph } from '../../src/ir/text.js';
import { renderedError } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

/** Writes files into a folder outside the repository; returns the folder. */
function written(files: Readonly<Record<string, string>>): string {
  const dir = temporaryFolder();
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(dir, name)), { recursive: true });
    writeFileSync(path.join(dir, name), text);
  }
  return dir;
}

const loadFrom = (dir: string): ReturnType<typeof loadModel> => loadModel(path.join(dir, 'small.graph.ts'));

/** What loading and building the model of this text throws. */
function refused(text: string, more: Readonly<Record<string, string>> = {}): string {
  const dir = written({ 'small.graph.ts': text, ...more });
  return renderedError(() => loadFrom(dir).build({}), dir);
}

/** Where each op of a graph was written, and the name of its result. */
function places(graph: Graph): string[] {
  return graph.nodes
    .filter((node) => !isLeaf(node))
    .map(({ op, origin: { span, name } }) => {
      const place = span
        ? `${path.basename(span.file)}:${span.line}:${span.column}+${span.length}`
        : 'nowhere';
      return `${op} ${name ?? '-'} ${place}`;
    });
}

const small = `import { add as plus, embed, linear, model, silu, tokens, weight, z } from 'upgc';
const config = z.object({ size: z.int().default(4) });
export default model({ name: 'small', config, context: () => 16 }, (c) => {
  const x = embed(tokens(), weight('table', [10, c.size]));
  const h = plus(
    x,
    silu(linear(x, weight('w', [c.size, c.size]))),
  );
  return linear(h, weight('table', [10, c.size]));
});
`;

describe('loadModel', () => {
  it('gives nodes the line and the variable they were written with, outside the repository too', () => {
    const dir = written({ 'small.graph.ts': small });
    const { graph } = loadFrom(dir).build({});
    expect(places(graph)).toEqual([
      'embed x small.graph.ts:4:13+5',
      'linear - small.graph.ts:7:10+6',
      'silu - small.graph.ts:7:5+4',
      'add h small.graph.ts:5:13+4',
      'linear - small.graph.ts:9:10+6',
    ]);
    expect(formatGraph(graph)).toMatchInlineSnapshot(`
      "graph small {
        %tokens = input : i32[T]   // small.graph.ts:4
        @table : f32[10, 4]   // small.graph.ts:4
        @w : f32[4, 4]   // small.graph.ts:7
        %x = embed %tokens, @table : f32[T, 4]   // small.graph.ts:4
        %linear = linear %x, @w : f32[T, 4]   // small.graph.ts:7
        %silu = silu %linear : f32[T, 4]   // small.graph.ts:7
        %h = add %x, %silu : f32[T, 4]   // small.graph.ts:5
        %linear.1 = linear %h, @table : f32[T, 10]   // small.graph.ts:9
        return logits = %linear.1
      }
      "
    `);
  });

  it('runs what a model imports, and finds places there', () => {
    const dir = written({
      'small.graph.ts': `import { model, z } from 'upgc';
import { logits } from './parts/blocks.js';
export default model({ name: 'small', config: z.object({}), context: () => 16 }, () => logits());
`,
      'parts/blocks.ts': `import { silu } from 'upgc';
import { start } from './start.js';
export * from './start.js';
export function logits() {
  const y = silu(start());
  return y;
}
`,
      'parts/start.ts': `import { embed, tokens, weight } from 'upgc';
export const start = () => embed(tokens(), weight('table', [10, 4]));
`,
    });
    expect(places(loadFrom(dir).build({}).graph)).toEqual([
      'embed - start.ts:2:28+5',
      'silu y blocks.ts:5:13+4',
    ]);
  });

  it('follows a model that is exported from another file', () => {
    const dir = written({
      'small.graph.ts': `export { default } from './real.graph.js';\n`,
      'real.graph.ts': small,
    });
    expect(loadFrom(dir).name).toBe('small');
  });

  it('offers at run time what it offers to the type checker', () => {
    expect(
      refused(`import { UserError } from 'upgc';
throw new UserError('this model is not ready');
`),
    ).toBe('error: this model is not ready');
  });

  it('loads the same file again from scratch', () => {
    const dir = written({ 'small.graph.ts': small });
    const first = loadFrom(dir);
    writeFileSync(path.join(dir, 'small.graph.ts'), small.replace("name: 'small'", "name: 'changed'"));
    expect([first.name, loadFrom(dir).name]).toEqual(['small', 'changed']);
  });
});

describe('refusals', () => {
  it('shows a type error', () => {
    expect(refused(small.replace("tokens(), weight('table'", "'ids', weight('table'")))
      .toMatchInlineSnapshot(`
      "error: Argument of type 'string' is not assignable to parameter of type 'Tensor'.
        ┌─ small.graph.ts:4:19
      4 │ const x = embed('ids', weight('table', [10, c.size]));
        │                 ^^^^^
        note: TypeScript error TS2345"
    `);
  });

  it('shows a type error of an imported file', () => {
    expect(
      refused(`import { size } from './size.js';\nexport default size;\n`, {
        'size.ts': `export const size: number = 'big';\n`,
      }),
    ).toMatchInlineSnapshot(`
      "error: Type 'string' is not assignable to type 'number'.
        ┌─ size.ts:1:14
      1 │ export const size: number = 'big';
        │              ^^^^
        note: TypeScript error TS2322"
    `);
  });

  it('shows a syntax error', () => {
    expect(refused(`import { model } from 'upgc';\nexport default model(;\n`)).toMatchInlineSnapshot(`
      "error: ')' expected.
        ┌─ small.graph.ts:2:22
      2 │ export default model(;
        │                      ^
        note: TypeScript error TS1005"
    `);
  });

  it('shows an import of nothing', () => {
    expect(refused(`import { attend } from 'upgc';\nexport default attend;\n`)).toMatchInlineSnapshot(`
      "error: Module '"upgc"' has no exported member 'attend'.
        ┌─ small.graph.ts:1:10
      1 │ import { attend } from 'upgc';
        │          ^^^^^^
        note: TypeScript error TS2305"
    `);
  });

  it('shows a shape error with the way there', () => {
    expect(
      refused(`import { embed, model, rmsNorm, scope, tokens, weight, z } from 'upgc';
import type { Tensor } from 'upgc';
const norm = (x: Tensor, name: string) =>
  rmsNorm(x, weight(\`\${name}.weight\`, [5121]), { eps: 1e-5 });
export default model({ name: 'small', config: z.object({}), context: () => 16 }, () => {
  const x = embed(tokens(), weight('table', [10, 5120]));
  return scope('model.layers.0', () => norm(x, 'input_layernorm'));
});
`),
    ).toMatchInlineSnapshot(`
      "error: rms_norm: weight f32[5121] must match the last axis of x f32[T, 5120]
        ┌─ small.graph.ts:4:3
      4 │ rmsNorm(x, weight(\`\${name}.weight\`, [5121]), { eps: 1e-5 });
        │ ^^^^^^^ in model.layers.0 › input_layernorm
        note: x f32[T, 5120] is the result of embed at <dir>/small.graph.ts:6:13
        note: weight f32[5121] is weight 'model.layers.0.input_layernorm.weight' at <dir>/small.graph.ts:4:14"
    `);
  });

  it('shows an attribute out of range', () => {
    expect(
      refused(`import { embed, model, rmsNorm, tokens, weight, z } from 'upgc';
export default model({ name: 'small', config: z.object({}), context: () => 16 }, () =>
  rmsNorm(embed(tokens(), weight('table', [10, 4])), weight('w', [4]), { eps: -1 }),
);
`),
    ).toMatchInlineSnapshot(`
      "error: rms_norm: eps: Too small: expected number to be >0
        ┌─ small.graph.ts:3:3
      3 │ rmsNorm(embed(tokens(), weight('table', [10, 4])), weight('w', [4]), { eps: -1 }),
        │ ^^^^^^^ in w"
    `);
  });

  it('shows where wrong logits come from', () => {
    expect(
      refused(`import { embed, model, splitHeads, tokens, weight, z } from 'upgc';
export default model({ name: 'small', config: z.object({}), context: () => 16 }, () => {
  const x = embed(tokens(), weight('table', [10, 4]));
  return splitHeads(x, 2);
});
`),
    ).toMatchInlineSnapshot(`
      "error: model small must return logits f32[T, V], not f32[T, 2, 2]
        ┌─ small.graph.ts:4:10
      4 │ return splitHeads(x, 2);
        │        ^^^^^^^^^^"
    `);
  });

  it('of a file without a model', () => {
    expect([refused('export const x = 1;\n'), refused('export default { name: 1 };\n')])
      .toMatchInlineSnapshot(`
      [
        "error: <dir>/small.graph.ts does not export a model
       note: write: export default model({ name: '…', config: z.object({ … }), context: … }, (c) => { … })",
        "error: <dir>/small.graph.ts does not export a model
       note: write: export default model({ name: '…', config: z.object({ … }), context: … }, (c) => { … })",
      ]
    `);
  });

  it('of a file that is not there', () => {
    const dir = temporaryFolder();
    expect(renderedError(() => loadFrom(dir), dir)).toMatchInlineSnapshot(`
      "error: model file <dir>/small.graph.ts cannot be read
       note: give the path of a .graph.ts file"
    `);
  });

  it('of a folder', () => {
    const dir = temporaryFolder();
    expect(renderedError(() => loadModel(dir), dir)).toMatchInlineSnapshot(`
      "error: model file <dir> is not TypeScript
       note: give the path of a .graph.ts file"
    `);
  });
});
