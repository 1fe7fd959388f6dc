import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, onTestFinished } from 'vitest';

/** An empty folder that is removed when the current test ends. */
export function temporaryFolder(): string {
  const dir = mkdtempSync(path.join(realpathSync(tmpdir()), 'upgc-test-'));
  onTestFinished(() => {
    rmSync(dir, { recursive: true, force: true });
  });
  return dir;
}

let shared: string | undefined;

/** One folder for all tests of a file, removed when they have run. Call it from a test or a hook at the top level. */
export function sharedFolder(): string {
  shared ??= mkdtempSync(path.join(realpathSync(tmpdir()), 'upgc-test-'));
  return shared;
}

afterAll(() => {
  if (shared !== undefined) rmSync(shared, { recursive: true, force: true });
});
