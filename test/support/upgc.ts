import { execFile } from 'node:child_process';

export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the built command as a user would: `upgc …`. */
export const upgc = (...args: readonly string[]): Promise<Result> => upgcWith([], ...args);

/** As `upgc`, with options for Node. */
export function upgcWith(nodeOptions: readonly string[], ...args: readonly string[]): Promise<Result> {
  return new Promise((resolve) => {
    execFile(process.execPath, [...nodeOptions, 'dist/cli/main.js', ...args], (error, stdout, stderr) => {
      const code = typeof error?.code === 'number' ? error.code : error ? -1 : 0;
      resolve({ code, stdout, stderr });
    });
  });
}
