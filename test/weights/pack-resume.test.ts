import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/diagnostic.js';
import { packWeights, type PackedWeight } from '../../src/weights/pack.js';
import type { TensorEntry } from '../../src/weights/stored.js';
import { alone } from '../support/packed.js';
import { sharedFolder, temporaryFolder } from '../support/temporary.js';

/** Several tensors, which take a second or two to pack: long enough to be stopped. */
const shape = [4096, 4096] as const;
const weights = 5;

let layout: PackedWeight[];
let total: number;
let expected: Buffer;

beforeAll(async () => {
  const file = path.join(sharedFolder(), 'source');
  const bits = new Uint16Array(shape[0] * shape[1]);
  for (let i = 0; i < bits.length; i++) bits[i] = 0x3c00 + (Math.imul(i, 2654435761) >>> 23);
  writeFileSync(file, bits);
  const tensor: TensorEntry = { name: 'w', dtype: 'BF16', shape, file, offset: 0, bytes: bits.byteLength };
  const one = alone({ tensor }, shape, 'q8g32', { method: 'search', tileRows: 4 });
  layout = Array.from({ length: weights }, (_, i) => ({ ...one, offset: i * one.bytes }));
  total = weights * one.bytes;
  const output = path.join(sharedFolder(), 'expected.bin');
  await packWeights(output, layout, total);
  expected = readFileSync(output);
});

const program = `
  import { readFileSync } from 'node:fs';
  import { packWeights } from ${JSON.stringify(path.resolve('dist/weights/pack.js'))};
  const { output, layout, total } = JSON.parse(readFileSync(0, 'utf8'));
  await packWeights(output, layout, total, (done) => process.stdout.write(done + '\\n'));
`;

/** Another process that packs; resolves once it has written so much. */
async function packingElsewhere(output: string, share: number): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin.end(JSON.stringify({ output, layout, total }));
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (data: Buffer) => {
      const done = Number(data.toString().trim().split('\n').at(-1));
      if (done >= share * total) resolve();
    });
    child.once('exit', () => reject(new Error('it ended before')));
  });
  return child;
}

async function killed(output: string): Promise<void> {
  const child = await packingElsewhere(output, 0.6);
  const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)));
  child.kill('SIGKILL');
  expect(await ended).toBe('SIGKILL');
  expect(readdirSync(path.dirname(output))).toEqual(['.weights.bin.partial']);
}

describe('a packing that was killed', () => {
  it('goes on where it was, to the same bytes', async () => {
    const output = path.join(temporaryFolder(), 'weights.bin');
    await killed(output);
    const progress: number[] = [];
    const stats = await packWeights(output, layout, total, (done) => progress.push(done), { threads: 1 });
    expect(stats.resumedBytes).toBeGreaterThan(0.25 * total);
    expect(stats.resumedBytes + stats.bytesWritten).toBe(total);
    expect(progress[0]).toBe(stats.resumedBytes);
    expect(progress).toEqual([...progress].sort((a, b) => a - b));
    expect(progress.at(-1)).toBe(total);
    expect(readFileSync(output).equals(expected)).toBe(true);
    expect(readdirSync(path.dirname(output))).toEqual(['weights.bin']);
  });

  it('starts anew when it would pack something else', async () => {
    const output = path.join(temporaryFolder(), 'weights.bin');
    await killed(output);
    const file = path.join(sharedFolder(), 'source');
    const { atime, mtime } = statSync(file);
    utimesSync(file, atime, new Date(mtime.getTime() + 5000));
    const { resumedBytes } = await packWeights(output, layout, total);
    expect(resumedBytes).toBe(0);
    expect(readFileSync(output).equals(expected)).toBe(true);
    const [first] = layout;
    if (!first) throw new Error('no weights');
    writeFileSync(path.join(path.dirname(output), '.weights.bin.partial'), expected);
    await packWeights(output, [first], first.bytes);
    expect(readFileSync(output).equals(expected.subarray(0, first.bytes))).toBe(true);
  });
});

it('leaves a file to the process that writes it', async () => {
  const output = path.join(temporaryFolder(), 'weights.bin');
  const child = await packingElsewhere(output, 0.05);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  await expect(packWeights(output, layout, total)).rejects.toThrow(/another process is writing/);
  await expect(packWeights(output, layout, total)).rejects.toThrow(UserError);
  expect(await ended).toBe(0);
  expect(readFileSync(output).equals(expected)).toBe(true);
});

it('ends early when it is asked to, and can be continued', async () => {
  const output = path.join(temporaryFolder(), 'weights.bin');
  const stop = new AbortController();
  const report = (done: number) => {
    if (done > 0.2 * total) stop.abort(new Error('stopped'));
  };
  const packing = packWeights(output, layout, total, report, { signal: stop.signal });
  await expect(packing).rejects.toThrow('stopped');
  expect(existsSync(output)).toBe(false);
  const { resumedBytes } = await packWeights(output, layout, total);
  expect(resumedBytes).toBeGreaterThan(0.2 * total);
  expect(readFileSync(output).equals(expected)).toBe(true);
});

it('explains a file that there is no room for', async () => {
  const output = path.join(temporaryFolder(), 'weights.bin');
  // Blocks of 1 KiB; without the trap the limit ends the process.
  const limited = `trap '' XFSZ; ulimit -f 1000; exec "$0" --input-type=module -e "$1"`;
  const message = await new Promise<string>((resolve) => {
    const child = execFile('bash', ['-c', limited, process.execPath, program], (_, __, stderr) =>
      resolve(stderr),
    );
    child.stdin?.end(JSON.stringify({ output, layout, total }));
  });
  expect(message).toMatch(/cannot write .*weights\.bin: file too large/);
  expect(readdirSync(path.dirname(output))).toEqual([]);
});
