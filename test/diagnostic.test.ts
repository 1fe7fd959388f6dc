import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  CompilerBug,
  formatSpan,
  nearest,
  relativeTo,
  renderError,
  Unsupported,
  UserError,
} from '../src/diagnostic.js';
import { temporaryFolder } from './support/temporary.js';

/** A file of two hundred lines, the last of them indented. */
function sourceFile(): { dir: string; file: string } {
  const dir = temporaryFolder();
  const file = path.join(dir, 'm.graph.ts');
  writeFileSync(file, `${'\n'.repeat(8)}  const x = silu(y);\n${'\n'.repeat(190)}    add(x, y);\r\n`);
  return { dir, file };
}

describe('renderError', () => {
  it('shows the line, a caret under the fault, where it is, and notes', () => {
    const { dir, file } = sourceFile();
    const error = new UserError('silu: no', {
      span: { file, line: 9, column: 13, length: 4 },
      within: 'model.layers.0',
      notes: ['first', 'second'],
    });
    expect(renderError(error, dir)).toMatchInlineSnapshot(`
      "error: silu: no
        ┌─ m.graph.ts:9:13
      9 │ const x = silu(y);
        │           ^^^^ in model.layers.0
        note: first
        note: second"
    `);
  });

  it('widens the margin with the line number', () => {
    const { dir, file } = sourceFile();
    const span = { file, line: 200, column: 5, length: 3 };
    expect(renderError(new UserError('add: no', { span, notes: ['note'] }), dir)).toMatchInlineSnapshot(`
      "error: add: no
          ┌─ m.graph.ts:200:5
      200 │ add(x, y);
          │ ^^^
          note: note"
    `);
  });

  it('shows the place alone when the line cannot be read', () => {
    const { dir, file } = sourceFile();
    const at = (place: string, line: number): string =>
      renderError(new UserError('no', { span: { file: place, line, column: 1, length: 1 } }), dir);
    expect([at(path.join(dir, 'gone.ts'), 3), at(file, 5000)]).toMatchInlineSnapshot(`
      [
        "error: no
        ┌─ gone.ts:3:1",
        "error: no
           ┌─ m.graph.ts:5000:1",
      ]
    `);
  });

  it('says whose fault it is', () => {
    expect([
      renderError(new UserError('a')),
      renderError(new Unsupported('b')),
      renderError(new CompilerBug('c', { notes: ['d'] })),
      renderError('thrown text'),
      renderError(undefined),
    ]).toMatchInlineSnapshot(`
      [
        "error: a",
        "unsupported: b",
        "bug in upgc: c
       note: d",
        "internal error: thrown text",
        "internal error: undefined",
      ]
    `);
  });

  it('keeps the stack of what nobody expected', () => {
    expect(renderError(new TypeError('x is not a function'))).toMatch(
      /^internal error: TypeError: x is not a function\n +at .*diagnostic\.test/,
    );
  });
});

describe('paths', () => {
  it('are relative inside the folder and absolute outside', () => {
    expect(relativeTo('/a/b', '/a/b/c/d.ts')).toBe('c/d.ts');
    expect(relativeTo('/a/b', '/a/bc/d.ts')).toBe('/a/bc/d.ts');
    expect(relativeTo('/a/b', '/a/d.ts')).toBe('/a/d.ts');
    expect(relativeTo('/a/b', '/a/b')).toBe('/a/b');
    expect(formatSpan({ file: '/a/b/c.ts', line: 3, column: 7, length: 1 }, '/a/b')).toBe('c.ts:3:7');
  });
});

describe('nearest', () => {
  it('finds a slip', () => {
    expect(nearest('fuse-layer', ['schedule', 'fuse-layers'])).toBe('fuse-layers');
    expect(nearest('lm_haed.weight', ['model.norm.weight', 'lm_head.weight'])).toBe('lm_head.weight');
    expect(nearest('abc', ['abd', 'abc'])).toBe('abc');
  });

  it('finds nothing where nothing is near', () => {
    expect(nearest('fuse', ['schedule', 'plan-pool'])).toBeUndefined();
    expect(nearest('ab', ['cde'])).toBeUndefined();
    expect(nearest('x', [])).toBeUndefined();
  });
});
