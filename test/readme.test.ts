import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { MetalOnCpu } from 'upgc/metal-cpu';
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

it('shows how to run a kernel', async () => {
  const [code = ''] = blocks.filter((block) => block.includes("'upgc/metal-cpu'"));
  const body = code.replace(/^import .*$/m, '');
  const sample = async (): Promise<void> => {
    await Promise.resolve();
  };
  const AsyncFunction = sample.constructor as new (
    ...text: string[]
  ) => (library: typeof MetalOnCpu) => Promise<Float32Array>;
  const y = await new AsyncFunction('MetalOnCpu', `${body} return y;`)(MetalOnCpu);
  expect(Array.from(y, (value) => value.toFixed(6))).toEqual([
    '0.032059',
    '0.087144',
    '0.236883',
    '0.643914',
  ]);
});
