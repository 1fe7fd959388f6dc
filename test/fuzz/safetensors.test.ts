import { writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { openCheckpoint } from '../../src/weights/checkpoint.js';
import { readTensorBytes } from '../../src/weights/read.js';
import { openSafetensors } from '../../src/weights/safetensors.js';
import { byteDamage, damagedJson, fuzz, opensOrExplains, titleOf } from '../support/damage.js';
import { f32, layOut, safetensorsBytes, writeSafetensors } from '../support/safetensors.js';
import { renderedError } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

// For a busy machine; it takes less than a minute.
vi.setConfig({ testTimeout: 300_000 });

const { header, data } = layOut({ a: f32([2, 2], [1, 2, 3, 4]), b: f32([3], [5, 6, 7]), c: f32([], [8]) });
const show = (bytes: Uint8Array): string => JSON.stringify(Buffer.from(bytes).toString('latin1'));

/** Opens the file; what it says of its tensors must hold. */
function openAll(file: string, fileBytes: number): void {
  for (const entry of openSafetensors(file).tensors.values()) {
    expect(entry.offset + entry.bytes).toBeLessThanOrEqual(fileBytes);
    expect(readTensorBytes(entry)).toHaveLength(entry.bytes);
  }
}

it(titleOf('a safetensors file of a damaged header opens or is explained', 6000), async () => {
  const file = path.join(temporaryFolder(), 'model.safetensors');
  const keys = ['a', '__metadata__', 'dtype', 'shape', 'data_offsets'];
  const headers = damagedJson(header, keys);
  const padded = fc
    .tuple(headers, fc.nat(3))
    .map(([text, spaces]) => `${text.toString('latin1')}${' '.repeat(spaces)}`);
  const of = fc.oneof(
    headers,
    padded.map((text) => Buffer.from(text, 'latin1')),
  );
  const opened = await fuzz({ runs: 6000, of, show, mebibytes: 256 }, (text) => {
    const bytes = safetensorsBytes(text, data);
    writeFileSync(file, bytes);
    return opensOrExplains('model.safetensors', () => openAll(file, bytes.length));
  });
  expect(opened).toBeGreaterThan(100);
  expect(opened).toBeLessThan(3000);
});

it(titleOf('a safetensors file of damaged bytes opens or is explained', 4000), async () => {
  const file = path.join(temporaryFolder(), 'model.safetensors');
  const valid = safetensorsBytes(header, data);
  const lengths = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((length) => (bytes: Buffer) => {
    const changed = Buffer.from(bytes);
    if (changed.length >= 8) changed.writeBigUInt64LE(length);
    return changed;
  });
  const damage = fc.oneof(
    { weight: 9, arbitrary: byteDamage(valid.length) },
    { weight: 1, arbitrary: lengths },
  );
  const of = fc
    .array(damage, { minLength: 1, maxLength: 3 })
    .map((list) => list.reduce((so, change) => change(so), valid));
  const opened = await fuzz({ runs: 4000, of, show, mebibytes: 256 }, (bytes) => {
    writeFileSync(file, bytes);
    return opensOrExplains('model.safetensors', () => openAll(file, bytes.length));
  });
  expect(opened).toBeGreaterThan(100);
  expect(opened).toBeLessThan(2000);
});

describe('a sharded checkpoint', () => {
  const index = 'model.safetensors.index.json';
  const valid = { a: 'model-1.safetensors', b: 'model-1.safetensors', c: 'model-2.safetensors' };
  function shards(): string {
    const dir = temporaryFolder();
    writeFileSync(path.join(dir, 'config.json'), '{}');
    writeSafetensors(path.join(dir, 'model-1.safetensors'), { a: f32([2], [1, 2]), b: f32([1], [3]) });
    writeSafetensors(path.join(dir, 'model-2.safetensors'), { c: f32([1], [4]) });
    return dir;
  }

  it(titleOf('of a damaged index opens or is explained', 10_000), async () => {
    const dir = shards();
    const text = JSON.stringify({ metadata: { total_size: 16 }, weight_map: valid });
    const of = damagedJson(text, ['weight_map', 'a', 'model-2.safetensors']);
    const opened = await fuzz({ runs: 10_000, of, show, mebibytes: 256 }, (bytes) => {
      writeFileSync(path.join(dir, index), bytes);
      return opensOrExplains(index, () => void openCheckpoint(dir));
    });
    expect(opened).toBeGreaterThan(500);
    expect(opened).toBeLessThan(7000);
  });

  it('shows names of its index cut short and without control characters', () => {
    const dir = shards();
    const refused = (map: object): string => {
      writeFileSync(path.join(dir, index), JSON.stringify({ weight_map: map }));
      return renderedError(() => openCheckpoint(dir), dir);
    };
    expect([
      refused({ a: 'x'.repeat(100_000) }),
      refused({ ['y'.repeat(100_000)]: 'model-1.safetensors' }),
      refused({ a: '\u001b[31m' }),
      refused({ a: { deep: true } }),
    ]).toMatchInlineSnapshot(`
      [
        "error: <dir>/model.safetensors.index.json: tensor "a": expected the name of a shard in the same folder, found "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…"",
        "error: missing tensor "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…" in <dir>/model-1.safetensors
       note: <dir>/model.safetensors.index.json says that it is there
       note: the index and its shards are from different downloads: download them again",
        "error: <dir>/model.safetensors.index.json: tensor "a": expected the name of a shard in the same folder, found "\\u001b[31m"",
        "error: <dir>/model.safetensors.index.json: tensor "a": expected the name of a shard in the same folder, found an object",
      ]
    `);
  });
});
