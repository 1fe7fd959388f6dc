import {
  add,
  attention,
  depth,
  embed,
  layers,
  linear,
  mergeHeads,
  model,
  mul,
  rmsNorm,
  rope,
  ropeOptions,
  ropeParameters,
  silu,
  size,
  splitHeads,
  tokens,
  weight,
  z,
} from 'upgc';
import type { Tensor } from 'upgc';

/** Mistral 7B (Jiang et al. 2023) and its siblings, NeMo too: Llama with a sliding window. The defaults are Mistral 7B v0.1. */
const config = z
  .object({
    vocab_size: size.default(32000),
    hidden_size: size.default(4096),
    intermediate_size: size.default(14336),
    num_hidden_layers: depth.default(32),
    num_attention_heads: size.default(32),
    num_key_value_heads: size.default(8),
    head_dim: size.nullish(),
    max_position_embeddings: size.default(32768),
    rms_norm_eps: z.number().positive().default(1e-5),
    tie_word_embeddings: z.boolean().default(false),
    hidden_act: z.literal('silu').default('silu'),
    sliding_window: size.nullable().default(4096),
    rope_parameters: ropeParameters.prefault({ rope_theta: 10000, rope_type: 'default' }),
  })
  .transform((c) => ({ ...c, head_size: c.head_dim ?? c.hidden_size / c.num_attention_heads }));

type Config = z.output<typeof config>;

const norm = (x: Tensor, name: string, c: Config): Tensor =>
  rmsNorm(x, weight(`${name}.weight`, [c.hidden_size]), { eps: c.rms_norm_eps });

function selfAttention(x: Tensor, c: Config): Tensor {
  const project = (name: string, heads: number): Tensor =>
    splitHeads(linear(x, weight(`self_attn.${name}.weight`, [heads * c.head_size, c.hidden_size])), heads);
  const turn = ropeOptions(c.rope_parameters, c.head_size, c.max_position_embeddings);
  const q = rope(project('q_proj', c.num_attention_heads), turn);
  const k = rope(project('k_proj', c.num_key_value_heads), turn);
  const v = project('v_proj', c.num_key_value_heads);
  const mixed = attention(q, k, v, { causal: true, window: c.sliding_window ?? undefined });
  return linear(
    mergeHeads(mixed),
    weight('self_attn.o_proj.weight', [c.hidden_size, c.num_attention_heads * c.head_size]),
  );
}

function swiglu(x: Tensor, c: Config): Tensor {
  const gate = linear(x, weight('mlp.gate_proj.weight', [c.intermediate_size, c.hidden_size]));
  const up = linear(x, weight('mlp.up_proj.weight', [c.intermediate_size, c.hidden_size]));
  return linear(mul(silu(gate), up), weight('mlp.down_proj.weight', [c.hidden_size, c.intermediate_size]));
}

function layer(x: Tensor, c: Config): Tensor {
  const h = add(x, selfAttention(norm(x, 'input_layernorm', c), c));
  return add(h, swiglu(norm(h, 'post_attention_layernorm', c), c));
}

export default model(
  { name: 'mistral', config, dtype: 'bf16', context: (c) => c.max_position_embeddings },
  (c) => {
    const table = weight('model.embed_tokens.weight', [c.vocab_size, c.hidden_size]);
    const x = layers(c.num_hidden_layers, 'model.layers', embed(tokens(), table), (h) => layer(h, c));
    const head = c.tie_word_embeddings ? table : weight('lm_head.weight', [c.vocab_size, c.hidden_size]);
    return linear(norm(x, 'model.norm', c), head);
  },
);
