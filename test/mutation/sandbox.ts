import { execFileSync, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { faultyText, type Fault } from './fault.js';

/** What a test file said. */
export interface FileReport {
  /** From the root of the repository. */
  readonly file: string;
  readonly passed: boolean;
  /** The first test that failed and its message. */
  readonly failure: string;
  readonly ms: number;
}

export interface TestRun {
  readonly timedOut: boolean;
  /** Whether vitest was satisfied; false also when a worker crashed. */
  readonly passed: boolean;
  readonly files: readonly FileReport[];
  readonly output: string;
}

/** The part of vitest's JSON report that is read. */
interface VitestReport {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message: string;
    readonly startTime: number;
    readonly endTime: number;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

const running = new Set<number>();

/** Ends the test runs that are under way, with the processes they started. */
export function stopTests(): void {
  for (const pid of running) {
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // It has just ended.
    }
  }
  running.clear();
}

/** A copy of the working tree to break and to test. */
export class Sandbox {
  /** Copies the tree at `root` to `folder`; it begins with the compiled kernels of `cache`. */
  constructor(
    root: string,
    private readonly folder: string,
    cache: string,
  ) {
    const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
      cwd: root,
      encoding: 'utf8',
    });
    for (const file of listed.split('\0').filter((name) => name !== '' && existsSync(path.join(root, name))))
      cpSync(path.join(root, file), path.join(folder, file));
    const addon = 'native/build/Release/upgc.node';
    cpSync(path.join(root, addon), path.join(folder, addon));
    symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'));
    mkdirSync(path.join(folder, 'build'));
    // A copy: the device reads compiled kernels from real folders only.
    mkdirSync(path.join(folder, 'build/cache'), { mode: 0o700 });
    cpSync(cache, path.join(folder, 'build/cache'), { recursive: true });
  }

  /** Runs `body` while the fault is in the copy. */
  async withFault<R>(fault: Fault, body: () => Promise<R>): Promise<R> {
    const file = path.join(this.folder, fault.file);
    const right = readFileSync(file);
    writeFileSync(file, faultyText(this.folder, fault));
    try {
      return await body();
    } finally {
      writeFileSync(file, right);
    }
  }

  /** Runs test files (all without any), with at most `workers` processes; with `bail`, up to the first failure. */
  async test(
    files: readonly string[],
    {
      workers,
      bail,
      limitMs,
    }: { readonly workers: number; readonly bail: boolean; readonly limitMs: number },
  ): Promise<TestRun> {
    const report = path.join(this.folder, 'build/report.json');
    rmSync(report, { force: true });
    const args = [
      path.join(this.folder, 'node_modules/vitest/vitest.mjs'),
      'run',
      ...files,
      `--maxWorkers=${workers}`,
      ...(bail ? ['--bail=1'] : []),
      '--reporter=json',
      `--outputFile=${report}`,
    ];
    let ended = await this.spawn(args, limitMs);
    // Vitest itself never ends by a signal, whatever its workers do: somebody has ended it.
    for (let again = 0; again < 3 && ended.code === null && !ended.timedOut; again++)
      ended = await this.spawn(args, limitMs);
    const { timedOut, code, output } = ended;
    const reports = existsSync(report)
      ? this.read(JSON.parse(readFileSync(report, 'utf8')) as VitestReport)
      : [];
    return { timedOut, passed: code === 0 && !timedOut, files: reports, output };
  }

  private read({ testResults }: VitestReport): FileReport[] {
    return testResults.map(({ name, status, message, startTime, endTime, assertionResults }) => {
      const failed = assertionResults.find((test) => test.status === 'failed');
      return {
        file: path.relative(this.folder, name),
        passed: status === 'passed',
        failure: failed ? `${failed.fullName}: ${failed.failureMessages[0] ?? ''}` : message,
        ms: endTime - startTime,
      };
    });
  }

  private spawn(
    args: readonly string[],
    limitMs: number,
  ): Promise<{ timedOut: boolean; code: number | null; output: string }> {
    return new Promise((resolve, reject) => {
      // A group of its own, so that a kernel that never ends can be stopped with all that waits for it. With CI set,
      // vitest writes no snapshots.
      const child = spawn(process.execPath, args, {
        cwd: this.folder,
        detached: true,
        env: { ...process.env, CI: '1' },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      const { pid } = child;
      if (pid !== undefined) running.add(pid);
      let output = '';
      for (const stream of [child.stdout, child.stderr])
        stream.setEncoding('utf8').on('data', (text: string) => (output = `${output}${text}`.slice(-4000)));
      let timedOut = false;
      const timer = setTimeout(() => {
        timedOut = true;
        if (pid !== undefined) process.kill(-pid, 'SIGKILL');
      }, limitMs);
      child.on('error', reject);
      child.on('close', (code) => {
        clearTimeout(timer);
        if (pid !== undefined) running.delete(pid);
        resolve({ timedOut, code, output });
      });
    });
  }
}
