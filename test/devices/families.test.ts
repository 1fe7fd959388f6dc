import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { compile, targets, type TargetName } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { decode, type Decoder } from '../support/decoder.js';
import { generateGreedily, largestDifference } from '../support/golden.js';
import { f32, writeSafetensors } from '../support/safetensors.js';
import { temporaryFolder } from '../support/temporary.js';
import { logitTolerance } from '../support/tolerance.js';

/** Models without goldens, of random weights, against test/support/decoder.ts. */

const sizes = { vocab_size: 40, hidden_size: 24, intermediate_size: 36, num_hidden_layers: 3 };
const heads = { num_attention_heads: 4, num_key_value_heads: 2, head_dim: 10 };
const rope_parameters = { rope_theta: 500, rope_type: 'default' };
const window = 9;

const plain: Decoder = {
  hidden: sizes.hidden_size,
  heads: heads.num_attention_heads,
  groups: heads.num_key_value_heads,
  headSize: heads.head_dim,
  layers: sizes.num_hidden_layers,
  eps: 1e-5,
  theta: rope_parameters.rope_theta,
  window: () => Infinity,
  scoreScale: heads.head_dim ** -0.5,
  activation: (x) => x / (1 + Math.exp(-x)),
  before: ['input_layernorm', 'post_attention_layernorm'],
};

const capped =
  (cap: number) =>
  (x: number): number =>
    cap * Math.tanh(x / cap);

interface Family {
  /** What config.json says beside the sizes. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly decoder: Decoder;
}

const families: Readonly<Record<string, Family>> = {
  mistral: {
    config: { rms_norm_eps: 1e-5, sliding_window: window },
    decoder: { ...plain, window: () => window },
  },
  qwen3: {
    config: { rms_norm_eps: 1e-5, use_sliding_window: true, sliding_window: window, max_window_layers: 1 },
    decoder: { ...plain, headNorms: true, window: (layer) => (layer >= 1 ? window : Infinity) },
  },
  granite: {
    config: {
      rms_norm_eps: 1e-5,
      embedding_multiplier: 3,
      attention_multiplier: 0.4,
      residual_multiplier: 0.7,
      logits_scaling: 2,
    },
    decoder: { ...plain, scoreScale: 0.4, embedding: 3, residual: 0.7, logit: (x) => x / 2 },
  },
  gemma2: {
    config: {
      rms_norm_eps: 1e-5,
      sliding_window: window,
      query_pre_attn_scalar: 6,
      attn_logit_softcapping: 2,
      final_logit_softcapping: 3,
      tie_word_embeddings: true,
    },
    decoder: {
      ...plain,
      window: (layer) => (layer % 2 === 0 ? window : Infinity),
      scoreScale: 6 ** -0.5,
      score: capped(2),
      logit: capped(3),
      gain: (stored) => 1 + stored,
      activation: (x) => (x / 2) * (1 + Math.tanh(0.7978845608028654 * (x + 0.044715 * x ** 3))),
      before: ['input_layernorm', 'pre_feedforward_layernorm'],
      after: ['post_attention_layernorm', 'post_feedforward_layernorm'],
      embedding: Math.sqrt(sizes.hidden_size),
    },
  },
};

/** The tensors that the checkpoint of a family has, with values of an even spread. */
function tensorsOf({ config, decoder }: Family): Map<string, { shape: number[]; data: Float32Array }> {
  const { hidden, groups, headSize, layers, headNorms = false, after = [], gain } = decoder;
  const shapes = new Map<string, number[]>([
    ['model.embed_tokens.weight', [sizes.vocab_size, hidden]],
    ['model.norm.weight', [hidden]],
  ]);
  if (config['tie_word_embeddings'] !== true) shapes.set('lm_head.weight', [sizes.vocab_size, hidden]);
  for (let layer = 0; layer < layers; layer++) {
    const add = (name: string, ...shape: number[]) =>
      shapes.set(`model.layers.${layer}.${name}.weight`, shape);
    for (const norm of [...decoder.before, ...after]) add(norm, hidden);
    add('self_attn.q_proj', decoder.heads * headSize, hidden);
    for (const name of ['k_proj', 'v_proj']) add(`self_attn.${name}`, groups * headSize, hidden);
    add('self_attn.o_proj', hidden, decoder.heads * headSize);
    for (const name of headNorms ? ['q_norm', 'k_norm'] : []) add(`self_attn.${name}`, headSize);
    for (const name of ['gate_proj', 'up_proj']) add(`mlp.${name}`, sizes.intermediate_size, hidden);
    add('mlp.down_proj', hidden, sizes.intermediate_size);
  }
  let seed = 1;
  const uniform = (): number => {
    seed = (48271 * seed) % (2 ** 31 - 1);
    return seed / 2 ** 30 - 1;
  };
  return new Map(
    [...shapes].map(([name, shape]) => {
      const [rows = 1, columns] = shape;
      const middle = columns === undefined && !gain ? 1 : 0;
      const size = columns === undefined ? 0.3 : Math.sqrt(3 / (name.includes('embed') ? 1 : columns));
      const data = Float32Array.from({ length: rows * (columns ?? 1) }, () => middle + size * uniform());
      return [name, { shape, data }];
    }),
  );
}

const cases = Object.entries(families).flatMap(([model, family]) =>
  (Object.keys(targets) as TargetName[]).map((target) => ({ model, family, target })),
);

it.each(cases)('models/$model is what its paper says, target $target', async ({ model, family, target }) => {
  const dir = temporaryFolder();
  const tensors = tensorsOf(family);
  const config = { ...sizes, ...heads, rope_parameters, max_position_embeddings: 64, ...family.config };
  writeFileSync(path.join(dir, 'config.json'), JSON.stringify(config));
  writeSafetensors(
    path.join(dir, 'model.safetensors'),
    Object.fromEntries([...tensors].map(([name, { shape, data }]) => [name, f32(shape, [...data])])),
  );
  const out = path.join(dir, 'build');
  // The caches of windows are rings of fewer rows than the text has tokens.
  await compile({ model: `models/${model}.graph.ts`, weights: dir, target, out, chunk: 7 });
  const session = await Session.open(out);
  const ids = Array.from({ length: 40 }, (_, i) => (7 + 11 * i + i * i) % sizes.vocab_size);
  const expected = decode(family.decoder, tensors, ids);
  const tolerance = logitTolerance({
    layers: sizes.num_hidden_layers,
    width: sizes.hidden_size,
    hidden: sizes.intermediate_size,
    context: ids.length,
    logits: expected,
  });
  expect(largestDifference(await session.score(ids), expected)).toBeLessThanOrEqual(tolerance);

  const { ids: next } = await generateGreedily(session, ids, 10);
  const logits = decode(family.decoder, tensors, [...ids, ...next]);
  const greedy = next.map((_, i) => {
    const end = (ids.length + i) * sizes.vocab_size;
    const row = logits.slice(end - sizes.vocab_size, end);
    return row.indexOf(Math.max(...row));
  });
  expect(next).toEqual(greedy);
  session.close();
});
