import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import type { Reporter, TestModule } from 'vitest/node';

const fromRoot = (file: string) => fileURLToPath(new URL(file, import.meta.url));

/** Ends the run with one plain line that a script can find: `12 passed, 0 failed, 1 skipped`. */
const closingLine: Reporter = {
  onTestRunEnd(modules, unhandledErrors) {
    const count = { passed: 0, failed: unhandledErrors.length, skipped: 0 };
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        // A test that never ended (`pending`) did not pass.
        count[state === 'pending' ? 'failed' : state] += 1;
      }
      count.failed += failedToLoad(module);
    }
    process.stdout.write(`\n${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped\n`);
  },
};

/** A file or suite that threw outside its tests fails the run without any failed test. */
function failedToLoad(module: TestModule): number {
  const suites = [...module.children.allSuites()];
  return module.errors().length + suites.reduce((sum, suite) => sum + suite.errors().length, 0);
}

export default defineConfig({
  resolve: {
    alias: [
      { find: /^upgc$/, replacement: fromRoot('src/index.ts') },
      { find: /^upgc\/compiler$/, replacement: fromRoot('src/compiler.ts') },
      { find: /^upgc\/metal-cpu$/, replacement: fromRoot('src/metal-cpu/index.ts') },
      { find: /^upgc\/runtime$/, replacement: fromRoot('src/runtime/index.ts') },
    ],
  },
  test: {
    include: ['test/**/*.test.ts', 'examples/**/*.test.ts'],
    // Native addons and process.chdir want processes, not worker threads.
    pool: 'forks',
    // vitest leaves one core to itself, which of two is half.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Compiled kernels stay inside the clone.
    env: { UPGC_CACHE: fromRoot('build/cache') },
    reporters: ['default', closingLine],
  },
});
