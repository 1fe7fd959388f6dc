import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { temporaryFolder } from './support/temporary.js';

const blocks = [...readFileSync('README.md', 'utf8').matchAll(/```ts\n(.*?)```/gs)].map(
  ([, code = '']) => code,
);

it('shows a model that compiles', async () => {
  const [code = ''] = blocks.filter((block) => block.includes('export default model('));
  const dir = temporaryFolder();
  const file = path.join(dir, 'tiny.graph.ts');
  writeFileSync(file, code);
  const summary = await compile({ model: file, out: path.join(dir, 'build') });
  expect(summary).toMatchObject({ model: 'tiny', dispatchesPerLayer: 3 });
});
