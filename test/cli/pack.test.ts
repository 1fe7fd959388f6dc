import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { temporaryFolder } from '../support/temporary.js';

/**
 * Lays out `dir` as `npm install upgc.tgz` would: the packed files under node_modules/upgc beside its dependencies.
 * Those are the clone's, so that the test needs no registry.
 */
function installPacked(dir: string): void {
  execFileSync('npm', ['pack', '--ignore-scripts', '--pack-destination', dir], { stdio: 'pipe' });
  const [tarball = ''] = readdirSync(dir).filter((name) => name.endsWith('.tgz'));
  const modules = path.join(dir, 'node_modules');
  mkdirSync(path.join(modules, 'upgc'), { recursive: true });
  execFileSync('tar', [
    '-xzf',
    path.join(dir, tarball),
    '-C',
    path.join(modules, 'upgc'),
    '--strip-components=1',
  ]);
  for (const name of readdirSync('node_modules')) {
    if (!name.startsWith('.')) symlinkSync(path.resolve('node_modules', name), path.join(modules, name));
  }
}

it('installs from a tarball and runs in another folder', { timeout: 240_000 }, () => {
  const dir = temporaryFolder();
  installPacked(dir);
  const run = (...args: string[]): string =>
    execFileSync(process.execPath, args, { cwd: dir, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  run('node_modules/upgc/native/setup.mjs', '--addon');
  copyFileSync('models/llama.graph.ts', path.join(dir, 'mine.graph.ts'));
  writeFileSync(
    path.join(dir, 'main.mjs'),
    `import { compile } from 'upgc/compiler';
     import { Session } from 'upgc/runtime';
     await compile({ model: 'mine.graph.ts', weights: process.argv[2], out: 'build' });
     const session = await Session.open('build');
     for await (const { text } of session.generate([1], { greedy: true, maxTokens: 12 })) process.stdout.write(text);
     session.close();`,
  );
  expect(run('main.mjs', path.resolve('examples/stories260k'))).toBe(
    'Once upon a time, there was a little girl',
  );
  expect(run('node_modules/upgc/dist/cli/main.js', 'run', 'build', '--greedy', '--max-tokens', '12')).toBe(
    'Once upon a time, there was a little girl\n',
  );
});
