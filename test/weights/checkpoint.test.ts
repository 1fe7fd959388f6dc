import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../../src/weights/checkpoint.js';
import { f32, writeSafetensors } from '../support/safetensors.js';
import { renderedError } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

const example = path.join(import.meta.dirname, '../../examples/stories260k');

/** A checkpoint folder with one tensor `w` and these JSON files. */
function checkpoint(files: Record<string, unknown>): string {
  const dir = temporaryFolder();
  writeSafetensors(path.join(dir, 'model.safetensors'), { w: f32([1], [1]) });
  write(dir, { 'config.json': {}, ...files });
  return dir;
}

function write(dir: string, files: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(files)) {
    writeFileSync(path.join(dir, name), typeof value === 'string' ? value : JSON.stringify(value));
  }
}

/** A checkpoint folder in two shards: `a` and `b` in the first, `c` in the second. */
function sharded(index: unknown): string {
  const dir = temporaryFolder();
  writeSafetensors(path.join(dir, 'model-1.safetensors'), { a: f32([1], [1]), b: f32([1], [2]) });
  writeSafetensors(path.join(dir, 'model-2.safetensors'), { c: f32([1], [3]) });
  write(dir, { 'config.json': {}, 'model.safetensors.index.json': index });
  return dir;
}

describe('openCheckpoint', () => {
  it('opens a real checkpoint', () => {
    const opened = openCheckpoint(example);
    expect(opened.config).toEqual(JSON.parse(readFileSync(path.join(example, 'config.json'), 'utf8')));
    expect(opened.bosToken).toBe(1);
    expect(opened.eosTokens).toEqual([2]);
    expect(opened.tensors.get('model.norm.weight')?.shape).toEqual([64]);
    expect(opened.tokenizerFiles.map(({ name }) => name)).toEqual([
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    for (const { name, read } of opened.tokenizerFiles)
      expect(Buffer.from(read())).toEqual(readFileSync(path.join(example, name)));
  });

  it.each([
    ['nothing', {}, { rope_theta: 10000, rope_type: 'default' }],
    [
      'transformers 4, no scaling',
      { rope_theta: 5e5, rope_scaling: null },
      { rope_theta: 5e5, rope_type: 'default' },
    ],
    [
      'transformers 4, scaling by `type`',
      {
        rope_theta: 250000,
        partial_rotary_factor: 0.75,
        original_max_position_embeddings: 4096,
        rope_scaling: { type: 'su', short_factor: [1], long_factor: [2] },
      },
      {
        rope_theta: 250000,
        rope_type: 'longrope',
        type: 'su',
        partial_rotary_factor: 0.75,
        original_max_position_embeddings: 4096,
        short_factor: [1],
        long_factor: [2],
      },
    ],
    [
      'transformers 4, scaling by `rope_type`',
      { rope_theta: 5e5, rope_scaling: { rope_type: 'llama3', type: 'other', factor: 8 } },
      { rope_theta: 5e5, rope_type: 'llama3', type: 'other', factor: 8 },
    ],
    [
      'transformers 5',
      {
        rope_theta: 1,
        original_max_position_embeddings: 64,
        rope_parameters: { rope_theta: 2, rope_type: 'default' },
      },
      { rope_theta: 2, rope_type: 'default' },
    ],
    [
      'transformers 5, no theta',
      { rope_theta: 3, rope_parameters: {} },
      { rope_theta: 3, rope_type: 'default' },
    ],
  ])('normalises rope parameters: %s', (_, config, expected) => {
    const opened = openCheckpoint(checkpoint({ 'config.json': { ...config, head_dim: 8 } }));
    expect(opened.config).toEqual({ ...config, head_dim: 8, rope_parameters: expected });
  });

  it.each([
    [{}, undefined, null, []],
    [{ bos_token_id: null, eos_token_id: null }, undefined, null, []],
    [{ bos_token_id: 1, eos_token_id: 2 }, undefined, 1, [2]],
    [{ bos_token_id: 1, eos_token_id: [2, 3] }, undefined, 1, [2, 3]],
    [{ bos_token_id: 1, eos_token_id: 2 }, {}, 1, [2]],
    [{ bos_token_id: 1, eos_token_id: 2 }, { bos_token_id: 0, eos_token_id: [4, 5] }, 0, [4, 5]],
    [{ bos_token_id: 1, eos_token_id: 2 }, { bos_token_id: null, eos_token_id: 0 }, 1, [0]],
  ])('finds the special ids of %j with generation_config.json %j', (config, generation, bos, eos) => {
    const opened = openCheckpoint(
      checkpoint({ 'config.json': config, ...(generation && { 'generation_config.json': generation }) }),
    );
    expect(opened.bosToken).toBe(bos);
    expect(opened.eosTokens).toEqual(eos);
    expect(opened.tokenizerFiles).toEqual([]);
  });

  it('opens shards', () => {
    const dir = sharded({
      weight_map: { a: 'model-1.safetensors', c: 'model-2.safetensors', b: 'model-1.safetensors' },
    });
    const { tensors } = openCheckpoint(dir);
    expect([...tensors.keys()]).toEqual(['a', 'c', 'b']);
    expect(tensors.get('c')?.file).toBe(path.join(dir, 'model-2.safetensors'));
  });

  it('explains a folder that is no checkpoint', () => {
    const dir = temporaryFolder();
    expect(renderedError(() => openCheckpoint(path.join(dir, 'absent')), dir)).toMatchInlineSnapshot(`
      "error: cannot open checkpoint <dir>/absent: no such file or folder
       note: expected the path of a Hugging Face model folder or a GGUF file"
    `);
    writeFileSync(path.join(dir, 'phi4.gguf'), 'GGUF');
    expect(renderedError(() => openCheckpoint(path.join(dir, 'phi4.gguf')), dir)).toMatchInlineSnapshot(`
      "error: <dir>/phi4.gguf is not a valid GGUF file: the version: the file ends at byte 4, before it is complete
       note: the file may be an incomplete download
       note: download the file again, or convert the model again"
    `);
    expect(renderedError(() => openCheckpoint(dir), dir)).toMatchInlineSnapshot(`
      "error: <dir> is not a checkpoint folder: it has no config.json
       note: expected a Hugging Face model folder (config.json, model.safetensors and tokenizer.json) or a GGUF file
       note: --weights <dir>/phi4.gguf reads that file"
    `);
    write(dir, { 'config.json': {} });
    expect(renderedError(() => openCheckpoint(dir), dir)).toMatchInlineSnapshot(`
      "error: <dir> has no weights
       note: expected model.safetensors, or model.safetensors.index.json with the shards that it names
       note: --weights <dir>/phi4.gguf reads that file"
    `);
    rmSync(path.join(dir, 'config.json'));
    mkdirSync(path.join(dir, 'config.json'));
    expect(renderedError(() => openCheckpoint(dir), dir)).toMatchInlineSnapshot(
      `"error: cannot read <dir>/config.json: it is not a regular file"`,
    );
  });

  it('explains a damaged configuration', () => {
    const faults: Record<string, unknown>[] = [
      { 'config.json': '{"hidden_size": 64,' },
      { 'config.json': [] },
      { 'config.json': { rope_theta: 'big' } },
      { 'config.json': { rope_theta: -1 } },
      { 'config.json': { rope_scaling: 8 } },
      { 'config.json': { rope_parameters: { rope_type: 3 } } },
      { 'config.json': { rope_parameters: { full_attention: { rope_theta: 1 }, sliding_attention: {} } } },
      { 'config.json': { bos_token_id: 'one' } },
      { 'config.json': { eos_token_id: [1, -2] } },
      { 'generation_config.json': 'null' },
      { 'generation_config.json': { eos_token_id: 1.5 } },
    ];
    const shown = faults.map((files) => {
      const dir = checkpoint(files);
      return `${JSON.stringify(files)}\n${renderedError(() => openCheckpoint(dir), dir)}`;
    });
    expect(`\n${shown.join('\n\n')}\n`).toMatchInlineSnapshot(`
      "
      {"config.json":"{\\"hidden_size\\": 64,"}
      error: <dir>/config.json is not valid JSON
       note: <parser's message>
       note: the file is damaged: download it again

      {"config.json":[]}
      error: <dir>/config.json: expected a JSON object, found an array
       note: the file is damaged: download it again

      {"config.json":{"rope_theta":"big"}}
      error: <dir>/config.json: rope_theta: expected a number

      {"config.json":{"rope_theta":-1}}
      error: <dir>/config.json: rope_theta: expected a positive number

      {"config.json":{"rope_scaling":8}}
      error: <dir>/config.json: rope_scaling should be an object, found a number

      {"config.json":{"rope_parameters":{"rope_type":3}}}
      error: <dir>/config.json: rope_type: expected the name of a rope type

      {"config.json":{"rope_parameters":{"full_attention":{"rope_theta":1},"sliding_attention":{}}}}
      unsupported: <dir>/config.json: rope parameters that differ between kinds of layers
       note: rope_parameters has "full_attention", "sliding_attention"; one set of parameters for all layers is supported

      {"config.json":{"bos_token_id":"one"}}
      error: <dir>/config.json: bos_token_id: expected a token id

      {"config.json":{"eos_token_id":[1,-2]}}
      error: <dir>/config.json: eos_token_id.1: expected a token id

      {"generation_config.json":"null"}
      error: <dir>/generation_config.json: expected a JSON object, found null
       note: the file is damaged: download it again

      {"generation_config.json":{"eos_token_id":1.5}}
      error: <dir>/generation_config.json: eos_token_id: expected a token id or a list of them
      "
    `);
  });

  it('explains a damaged index', () => {
    const indices: unknown[] = [
      'not json',
      {},
      { weight_map: [] },
      { weight_map: { a: 3 } },
      { weight_map: { a: '../model.safetensors' } },
      { weight_map: { a: '..' } },
      { weight_map: { a: 'C:\\model.safetensors' } },
      { weight_map: { a: 'model-3.safetensors' } },
      { weight_map: { 'model.layers.0.b': 'model-1.safetensors' } },
      { weight_map: { bb: 'model-1.safetensors' } },
    ];
    const shown = indices.map((index) => {
      const dir = sharded(index);
      return `${JSON.stringify(index)}\n${renderedError(() => openCheckpoint(dir), dir)}`;
    });
    expect(`\n${shown.join('\n\n')}\n`).toMatchInlineSnapshot(`
      "
      "not json"
      error: <dir>/model.safetensors.index.json is not valid JSON
       note: <parser's message>
       note: the file is damaged: download it again

      {}
      error: <dir>/model.safetensors.index.json: weight_map should be an object, found nothing
       note: the file is damaged: download it again

      {"weight_map":[]}
      error: <dir>/model.safetensors.index.json: weight_map should be an object, found an array
       note: the file is damaged: download it again

      {"weight_map":{"a":3}}
      error: <dir>/model.safetensors.index.json: tensor "a": expected the name of a shard in the same folder, found a number

      {"weight_map":{"a":"../model.safetensors"}}
      error: <dir>/model.safetensors.index.json: tensor "a": expected the name of a shard in the same folder, found "../model.safetensors"

      {"weight_map":{"a":".."}}
      error: <dir>/model.safetensors.index.json: tensor "a": expected the name of a shard in the same folder, found ".."

      {"weight_map":{"a":"C:\\\\model.safetensors"}}
      error: <dir>/model.safetensors.index.json: tensor "a": expected the name of a shard in the same folder, found "C:\\\\model.safetensors"

      {"weight_map":{"a":"model-3.safetensors"}}
      error: missing shard <dir>/model-3.safetensors
       note: <dir>/model.safetensors.index.json names it
       note: the download is probably incomplete: download the missing file

      {"weight_map":{"model.layers.0.b":"model-1.safetensors"}}
      error: missing tensor "model.layers.0.b" in <dir>/model-1.safetensors
       note: <dir>/model.safetensors.index.json says that it is there
       note: the index and its shards are from different downloads: download them again

      {"weight_map":{"bb":"model-1.safetensors"}}
      error: missing tensor "bb" in <dir>/model-1.safetensors
       note: <dir>/model.safetensors.index.json says that it is there
       note: the nearest name there is "b"
       note: the index and its shards are from different downloads: download them again
      "
    `);
  });
});
