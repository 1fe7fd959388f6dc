import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import type { Model } from 'upgc';
import { compile } from 'upgc/compiler';
import { modelFileOf, shelf, shelvedFile } from '../../src/architectures.js';
import { isOp } from '../../src/ir/graph.js';
import { loadModel } from '../../src/ir/load.js';
import { openCheckpoint } from '../../src/weights/checkpoint.js';
import { damagedJson, explained, fuzz, inTime, titleOf } from '../support/damage.js';
import { f32, writeSafetensors } from '../support/safetensors.js';
import { renderedError, renderedRejection } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

// For a busy machine; it takes less than a minute.
vi.setConfig({ testTimeout: 300_000 });

/** Settings of a tiny model of each architecture, with as many of the optional ones as it can have. */
const llamaLike = {
  vocab_size: 12,
  hidden_size: 8,
  intermediate_size: 16,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 32,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: [2, 3],
};
const factors = { short_factor: [1, 1.5], long_factor: [2, 4], original_max_position_embeddings: 16 };
const settings: Readonly<Record<string, object>> = {
  gemma2: {
    ...llamaLike,
    head_dim: 4,
    query_pre_attn_scalar: 4,
    sliding_window: 8,
    tie_word_embeddings: true,
  },
  gpt2: {
    vocab_size: 12,
    n_embd: 8,
    n_layer: 2,
    n_head: 2,
    n_inner: 16,
    n_positions: 32,
    layer_norm_epsilon: 1e-5,
  },
  granite: { ...llamaLike, embedding_multiplier: 3, attention_multiplier: 0.4, logits_scaling: 2 },
  llama: {
    ...llamaLike,
    rope_parameters: {
      ...{ rope_theta: 10000, rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
      original_max_position_embeddings: 16,
    },
  },
  mistral: { ...llamaLike, head_dim: 4, sliding_window: 8 },
  phi4: { ...llamaLike, rope_scaling: { type: 'longrope', ...factors }, partial_rotary_factor: 1 },
  qwen2: { ...llamaLike, use_sliding_window: true, sliding_window: 8, max_window_layers: 1 },
  qwen3: {
    ...llamaLike,
    head_dim: 4,
    layer_types: ['full_attention', 'sliding_attention'],
    sliding_window: 8,
  },
};

/** Writes a checkpoint whose weights are all zero. */
function writeZeros(dir: string, config: object, { build }: Model): void {
  writeFileSync(path.join(dir, 'config.json'), JSON.stringify(config));
  writeSafetensors(path.join(dir, 'model.safetensors'), {});
  const weights = build(openCheckpoint(dir).config).graph.nodes.filter((node) => isOp(node, 'weight'));
  const stored = weights.map(({ attrs: { name, shape, transposed } }) => {
    const count = shape.reduce((a, b) => a * b, 1);
    return [name, f32(transposed ? shape.toReversed() : shape, Array<number>(count).fill(0))] as const;
  });
  writeSafetensors(path.join(dir, 'model.safetensors'), Object.fromEntries(stored));
}

const runs = Math.ceil(10_000 / shelf.length);
const show = (text: Buffer): string => text.toString('latin1');
const models = new Map<string, Model>();

describe.each(shelf)('config.json of $file', ({ file, type, architecture }) => {
  const config = { architectures: [architecture], model_type: type, ...settings[file] };

  function checkpointFolder(): string {
    const dir = temporaryFolder();
    const model = loadModel(shelvedFile(file));
    models.set(shelvedFile(file), model);
    writeZeros(dir, config, model);
    return dir;
  }

  it(titleOf('damaged, makes a model or is explained', runs), async () => {
    const dir = checkpointFolder();
    const keys = [
      ...Object.values(settings).flatMap((of) => Object.keys(of)),
      ...['rope_scaling', 'rope_parameters', 'rope_type', 'type', 'factor', 'attention_factor'],
      ...['hidden_act', 'attention_bias', 'attn_logit_softcapping', 'architectures', 'model_type'],
    ];
    let count = 0;
    const of = damagedJson(JSON.stringify(config), keys);
    const compiled = await fuzz({ runs, of, show }, async (text) => {
      writeFileSync(path.join(dir, 'config.json'), text);
      try {
        const model = inTime(() => {
          const named = modelFileOf(openCheckpoint(dir));
          return models.get(named) ?? loadModel(named);
        });
        // All passes and the kernels are for some; the graph and its weights for all.
        const whole = count++ % 10 === 0 ? {} : { stopAfter: 'load' };
        await inTime(() => compile({ model, weights: dir, out: null, ...whole }));
        return true;
      } catch (error) {
        explained(error, path.basename(dir));
        return false;
      }
    });
    expect(compiled).toBeGreaterThan(runs / 50);
    expect(compiled).toBeLessThan(runs * 0.8);
  });
});

describe('config.json', () => {
  /** What is said of a llama's config.json with these changes. */
  async function refused(changes: object): Promise<string> {
    const dir = temporaryFolder();
    const model = models.get(shelvedFile('llama')) ?? loadModel(shelvedFile('llama'));
    models.set(shelvedFile('llama'), model);
    writeZeros(dir, settings['llama'] ?? {}, model);
    writeFileSync(path.join(dir, 'config.json'), JSON.stringify({ ...settings['llama'], ...changes }));
    return renderedRejection(() => compile({ model, weights: dir, out: null }), dir);
  }

  it('cannot ask for more layers or larger sizes than fit any memory', async () => {
    const huge = { num_hidden_layers: 1e9, vocab_size: 2 ** 40, max_position_embeddings: 1e15 };
    expect(await refused(huge)).toMatchInlineSnapshot(`
      "error: <dir>/config.json does not fit model llama
       note: vocab_size: Too big: expected number to be <=16777216
       note: num_hidden_layers: Too big: expected number to be <=1024
       note: max_position_embeddings: Too big: expected number to be <=16777216"
    `);
    expect(await refused({ head_dim: 2 ** 24 })).toMatchInlineSnapshot(`
      "error: heads of 16777216 elements are too wide: at most 65536 can turn
       note: the settings are those of <dir>/config.json"
    `);
  });

  it('is named where the graph does not like its settings', async () => {
    expect(await refused({ num_key_value_heads: 3, num_attention_heads: 4, head_dim: 2 }))
      .toMatchInlineSnapshot(`
      "error: attention: the heads of q f32[T, 4, 2] must be a multiple of the heads of k f32[T, 3, 2]
         ┌─ models/llama.graph.ts:61:28
      61 │ const mixed = mergeHeads(attention(q, k, v, { causal: true }));
         │                          ^^^^^^^^^ in model.layers.0
         note: q f32[T, 4, 2] is the result of rope at models/llama.graph.ts:58:13
         note: k f32[T, 3, 2] is the result of rope at models/llama.graph.ts:59:13
         note: v f32[T, 3, 2] is the result of reshape at models/llama.graph.ts:56:5
         note: the settings are those of <dir>/config.json"
    `);
  });

  it('has a long architecture shown cut short', () => {
    const dir = temporaryFolder();
    writeFileSync(path.join(dir, 'config.json'), JSON.stringify({ architectures: ['x'.repeat(100_000)] }));
    writeSafetensors(path.join(dir, 'model.safetensors'), {});
    const message = renderedError(() => modelFileOf(openCheckpoint(dir)), dir).split('\n', 1)[0];
    expect(message).toMatch(/^error: there is no model for the architecture "x{99}…" of <dir>$/);
  });
});
