import { renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it, vi } from 'vitest';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { openCheckpoint } from '../../src/weights/checkpoint.js';
import { readTensor } from '../../src/weights/read.js';
import { largestDifference } from '../support/golden.js';
import {
  array,
  bool,
  f32 as f32Entry,
  ggufBytes,
  i32,
  text,
  typeNumbers,
  u16,
  u32,
  type Entry,
  type TensorToWrite,
} from '../support/gguf.js';
import { renderedError } from '../support/snapshot.js';
import { f32, writeSafetensors } from '../support/safetensors.js';
import { temporaryFolder } from '../support/temporary.js';

// Models are loaded and kernels compiled, several times.
vi.setConfig({ testTimeout: 180_000 });

/** GGUF files as llama.cpp's converter writes them, of the checkpoints that they are converted from. */

const tensor = (name: string, shape: readonly number[], values: readonly number[]): TensorToWrite => ({
  name,
  type: typeNumbers.F32,
  shape,
  data: new Uint8Array(Float32Array.from(values).buffer),
});

function tokenizer(vocabulary: number): Record<string, Entry> {
  const ids = Array.from({ length: vocabulary }, (_, i) => i);
  return {
    'tokenizer.ggml.model': text('llama'),
    'tokenizer.ggml.add_bos_token': bool(false),
    'tokenizer.ggml.tokens': array(ids.map((id) => text(id === 0 ? '<unk>' : `t${id}`))),
    'tokenizer.ggml.scores': array(ids.map((id) => f32Entry(-id))),
    'tokenizer.ggml.token_type': array(ids.map((id) => i32(id === 0 ? 2 : 1))),
  };
}

async function scored(weights: string, ids: readonly number[]): Promise<Float32Array> {
  const out = path.join(temporaryFolder(), 'build');
  await compile({ weights, out, target: 'cpu', context: 16 });
  const session = await Session.open(out);
  const logits = await session.score(ids);
  session.close();
  return logits;
}

/** The tensors of a checkpoint by other names, which `rename` gives with what becomes of the values. */
function converted(
  checkpoint: string,
  rename: (name: string) => { readonly name: string; readonly turned?: boolean; readonly plus?: number },
): TensorToWrite[] {
  return [...openCheckpoint(checkpoint).tensors.values()].map((entry) => {
    const { name, turned = false, plus = 0 } = rename(entry.name);
    const values = [...readTensor(entry)].map((value) => value + plus);
    const [rows = 1, columns = 1] = entry.shape;
    if (!turned) return tensor(name, entry.shape, values);
    const turnedValues = values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)] ?? NaN);
    return tensor(name, [columns, rows], turnedValues);
  });
}

function renamedBy(table: Readonly<Record<string, string>>, layers: RegExp, name: string): string {
  const [, layer, inner = name] = layers.exec(name) ?? [];
  const [, stem = '', kind = ''] = /^(.*)(\.weight|\.bias)$/.exec(inner) ?? [];
  return `${layer === undefined ? '' : `blk.${layer}.`}${table[stem] ?? stem}${kind}`;
}

it('GPT-2: matrices are turned, positions and biases have their names', async () => {
  const fixture = 'test/fixtures/random-gpt2';
  const { config } = openCheckpoint(fixture);
  const number = (key: string): number => Number(config[key]);
  const names = {
    'transformer.wte': 'token_embd',
    'transformer.wpe': 'position_embd',
    'transformer.ln_f': 'output_norm',
    ln_1: 'attn_norm',
    'attn.c_attn': 'attn_qkv',
    'attn.c_proj': 'attn_output',
    ln_2: 'ffn_norm',
    'mlp.c_fc': 'ffn_up',
    'mlp.c_proj': 'ffn_down',
  };
  const tensors = converted(fixture, (name) => ({
    name: renamedBy(names, /^transformer\.h\.(\d+)\.(.*)$/, name),
    turned: /\.c_(attn|proj|fc)\.weight$/.test(name),
  }));
  const place = path.join(temporaryFolder(), 'model.gguf');
  const metadata = {
    'general.architecture': text('gpt2'),
    'gpt2.context_length': u32(number('n_positions')),
    'gpt2.embedding_length': u32(number('n_embd')),
    'gpt2.feed_forward_length': u32(Number(config['n_inner'] ?? 4 * number('n_embd'))),
    'gpt2.block_count': u32(number('n_layer')),
    'gpt2.attention.head_count': u32(number('n_head')),
    'gpt2.attention.layer_norm_epsilon': f32Entry(number('layer_norm_epsilon')),
    ...tokenizer(number('vocab_size')),
  };
  writeFileSync(place, ggufBytes({ metadata, tensors }));
  const ids = [1, 5, 2, 8, 3];
  expect(await scored(place, ids)).toEqual(await scored(fixture, ids));
});

const gemma = {
  architectures: ['Gemma2ForCausalLM'],
  vocab_size: 24,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  query_pre_attn_scalar: 8,
  sliding_window: 4,
  attn_logit_softcapping: 2,
  final_logit_softcapping: 3,
  max_position_embeddings: 32,
  rms_norm_eps: 1e-6,
};

function gemmaCheckpoint(): string {
  const dir = temporaryFolder();
  const { vocab_size, hidden_size: width, intermediate_size: inner, head_dim: head } = gemma;
  const shapes: Record<string, number[]> = {
    'model.embed_tokens.weight': [vocab_size, width],
    'model.norm.weight': [width],
  };
  for (const layer of [0, 1]) {
    const add = (name: string, ...shape: number[]) =>
      (shapes[`model.layers.${layer}.${name}.weight`] = shape);
    for (const norm of ['input', 'post_attention', 'pre_feedforward', 'post_feedforward'])
      add(`${norm}_layernorm`, width);
    add('self_attn.q_proj', 2 * head, width);
    for (const name of ['k_proj', 'v_proj']) add(`self_attn.${name}`, head, width);
    add('self_attn.o_proj', width, 2 * head);
    for (const name of ['gate_proj', 'up_proj']) add(`mlp.${name}`, inner, width);
    add('mlp.down_proj', width, inner);
  }
  const stored = Object.entries(shapes).map(([name, shape], seed) => {
    const values = Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) =>
      Math.sin(17 * seed + 1.3 * i),
    );
    return [name, f32(shape, values)] as const;
  });
  writeFileSync(path.join(dir, 'config.json'), JSON.stringify(gemma));
  writeSafetensors(path.join(dir, 'model.safetensors'), Object.fromEntries(stored));
  return dir;
}

function gemmaGguf(checkpoint: string): { metadata: Record<string, Entry>; tensors: TensorToWrite[] } {
  const names = {
    'model.embed_tokens': 'token_embd',
    'model.norm': 'output_norm',
    input_layernorm: 'attn_norm',
    'self_attn.q_proj': 'attn_q',
    'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v',
    'self_attn.o_proj': 'attn_output',
    post_attention_layernorm: 'post_attention_norm',
    pre_feedforward_layernorm: 'ffn_norm',
    'mlp.gate_proj': 'ffn_gate',
    'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down',
    post_feedforward_layernorm: 'post_ffw_norm',
  };
  const tensors = converted(checkpoint, (name) => ({
    name: renamedBy(names, /^model\.layers\.(\d+)\.(.*)$/, name),
    plus: name.endsWith('norm.weight') ? 1 : 0,
  }));
  const metadata = {
    'general.architecture': text('gemma2'),
    'gemma2.context_length': u32(gemma.max_position_embeddings),
    'gemma2.embedding_length': u32(gemma.hidden_size),
    'gemma2.block_count': u32(gemma.num_hidden_layers),
    'gemma2.feed_forward_length': u32(gemma.intermediate_size),
    'gemma2.attention.head_count': u32(gemma.num_attention_heads),
    'gemma2.attention.head_count_kv': u32(gemma.num_key_value_heads),
    'gemma2.attention.layer_norm_rms_epsilon': f32Entry(gemma.rms_norm_eps),
    'gemma2.attention.key_length': u32(gemma.head_dim),
    'gemma2.attention.value_length': u32(gemma.head_dim),
    'gemma2.attn_logit_softcapping': f32Entry(gemma.attn_logit_softcapping),
    'gemma2.final_logit_softcapping': f32Entry(gemma.final_logit_softcapping),
    'gemma2.attention.sliding_window': u32(gemma.sliding_window),
    ...tokenizer(gemma.vocab_size),
  };
  return { metadata, tensors };
}

const ids = [1, 5, 2, 8, 3, 20, 11];

it('Gemma 2: norms have their 1, soft caps and windows are read; also in parts', async () => {
  const checkpoint = gemmaCheckpoint();
  const { metadata, tensors } = gemmaGguf(checkpoint);
  const dir = temporaryFolder();
  const whole = path.join(dir, 'model.gguf');
  writeFileSync(whole, ggufBytes({ metadata, tensors }));
  const found = await scored(whole, ids);
  // Adding 1 to a norm rounds it; logits are at most 3.
  expect(largestDifference(found, await scored(checkpoint, ids))).toBeLessThan(1e-4);

  const parts = [tensors.slice(0, 5), tensors.slice(5, 6), tensors.slice(6)];
  const places = parts.map((_, i) => path.join(dir, `model-0000${i + 1}-of-00003.gguf`));
  for (const [i, place] of places.entries()) {
    const split = { 'split.no': u16(i), 'split.count': u16(3), 'split.tensors.count': i32(tensors.length) };
    writeFileSync(
      place,
      ggufBytes({ metadata: { ...(i === 0 ? metadata : {}), ...split }, tensors: parts[i] ?? [] }),
    );
  }
  const [first = '', second = '', third = ''] = places;
  expect(await scored(first, ids)).toEqual(found);
  expect([...openCheckpoint(third).tensors.keys()]).toEqual([...openCheckpoint(first).tensors.keys()]);

  const refusals: string[] = [];
  renameSync(second, path.join(dir, 'other.gguf'));
  refusals.push(renderedError(() => openCheckpoint(first), dir));
  refusals.push(renderedError(() => openCheckpoint(path.join(dir, 'other.gguf')), dir));
  writeFileSync(second, ggufBytes({ metadata: { 'split.no': u16(2), 'split.count': u16(3) } }));
  refusals.push(renderedError(() => openCheckpoint(first), dir));
  expect(refusals).toMatchInlineSnapshot(`
    [
      "error: cannot read <dir>/model-00002-of-00003.gguf: no such file or folder",
      "error: <dir>/other.gguf is one part of 3, and not named as one
     note: expected NAME-00001-of-00003.gguf, with the other parts beside it",
      "error: <dir>/model-00002-of-00003.gguf: metadata "split.no": expected 1",
    ]
  `);
});
