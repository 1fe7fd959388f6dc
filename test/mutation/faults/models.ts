import type { Fault } from '../fault.js';

const faultsOf =
  (model: string) =>
  ([find, replace, what]: readonly [find: string, replace: string, what: string]): Fault => ({
    file: `models/${model}.graph.ts`,
    find,
    replace,
    what: `${model} ${what}`,
    tests: ['test/devices/families.test.ts'],
  });

const turns = 'ropeOptions(c.rope_parameters, c.head_';
const gate = ['mul(silu(gate), up)', 'mul(gate, silu(up))', 'swaps gate and up'] as const;
const headDims = [`${turns}dim,`, `${turns}dim - 2,`, 'leaves a pair of each head unturned'] as const;
const headSize = [`${turns}size,`, `${turns}size - 2,`, 'leaves a pair of each head unturned'] as const;
const middle = ["norm(h, 'post_attention_layernorm', c)", 'h', 'forgets the norm before the MLP'] as const;

/** Faults in the graphs that have no goldens. */
export const modelFaults: readonly Fault[] = [
  ...[
    gate,
    headSize,
    ['window: c.sliding_window ?? undefined', 'window: undefined', 'has no window'] as const,
    [
      'window: c.sliding_window ?? undefined',
      'window: (c.sliding_window ?? 0) + 1',
      'sees a token too many',
    ] as const,
  ].map(faultsOf('mistral')),
  ...[
    gate,
    headDims,
    [
      'self_attn.${name}_norm.weight',
      "self_attn.${name === 'q' ? 'k' : 'q'}_norm.weight",
      'gives q the norm of k',
    ] as const,
    [
      'index >= c.max_window_layers',
      'index > c.max_window_layers',
      'slides from a layer too far up',
    ] as const,
    ['index >= c.max_window_layers', 'index < c.max_window_layers', 'slides in the lower layers'] as const,
  ].map(faultsOf('qwen3')),
  ...[
    gate,
    headSize,
    middle,
    ['scale: c.attention_multiplier', 'scale: c.head_size ** -0.5', 'has the usual scale of scores'] as const,
    ['{ by: c.residual_multiplier }', '{ by: 1 }', 'has no multiplier of what blocks add'] as const,
    ['{ by: c.embedding_multiplier }', '{ by: 1 }', 'has no multiplier of embeddings'] as const,
    [
      '{ by: 1 / c.logits_scaling }',
      '{ by: c.logits_scaling }',
      'multiplies logits instead of dividing',
    ] as const,
  ].map(faultsOf('granite')),
  ...[
    headDims,
    ['mul(gelu(gate), up)', 'mul(gate, gelu(up))', 'swaps gate and up'] as const,
    ['offset: c.norm_offset', 'offset: 0', 'takes norms as they are stored'] as const,
    ['index % 2 === 0', 'index % 2 === 1', 'slides in the other layers'] as const,
    ['softcap: c.attn_logit_softcapping ?? undefined', 'softcap: undefined', 'does not cap scores'] as const,
    [
      "norm(x, 'model.norm', c), head), c.final_logit_softcapping)",
      "norm(x, 'model.norm', c), head), null)",
      'does not cap logits',
    ] as const,
    ['c.query_pre_attn_scalar ** -0.5', 'c.head_dim ** -0.5', 'has the usual scale of scores'] as const,
    ['{ by: Math.sqrt(c.hidden_size) }', '{ by: 1 }', 'does not scale embeddings'] as const,
    [
      "add(x, norm(mixed, 'post_attention_layernorm', c))",
      "norm(add(x, mixed), 'post_attention_layernorm', c)",
      'norms the sum after attention',
    ] as const,
  ].map(faultsOf('gemma2')),
];
