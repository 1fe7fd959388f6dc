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

/** Llama 2 and 3 (Touvron et al. 2023; Llama team 2024), grouped-query attention; the defaults are Llama 2 7B. */
const config = z
  .object({
    vocab_size: size.default(32000),
    hidden_size: size.default(4096),
    intermediate_size: size.default(11008),
    num_hidden_layers: depth.default(32),
    num_attention_heads: size.default(32),
    num_key_value_heads: size.optional(),
    head_dim: size.nullish(),
    max_position_embeddings: size.default(4096),
    rms_norm_eps: z.number().positive().default(1e-5),
    tie_word_embeddings: z.boolean().default(false),
    hidden_act: z.literal('silu').default('silu'),
    sliding_window: z.null().default(null),
    attention_bias: z.literal(false).default(false),
    mlp_bias: z.literal(false).default(false),
    rope_parameters: ropeParameters.prefault({ rope_theta: 10000, rope_type: 'default' }),
  })
  .transform((c) => ({
    ...c,
    kv_heads: c.num_key_value_heads ?? c.num_attention_heads,
    head_size: c.head_dim ?? c.hidden_size / c.num_attention_heads,
  }));

type Config = z.output<typeof config>;

const norm = (x: Tensor, name: string, c: Config): Tensor =>
  rmsNorm(x, weight(`${name}.weight`, [c.hidden_size]), { eps: c.rms_norm_eps });

function selfAttention(x: Tensor, c: Config): Tensor {
  const project = (name: string, heads: number): Tensor =>
    splitHeads(linear(x, weight(`self_attn.${name}.weight`, [heads * c.head_size, c.hidden_size])), heads);
  const turn = ropeOptions(c.rope_parameters, c.head_size, c.max_position_embeddings);
  const q = rope(project('q_proj', c.num_attention_heads), turn);
  const k = rope(project('k_proj', c.kv_heads), turn);
  const v = project('v_proj', c.kv_heads);
  const mixed = mergeHeads(attention(q, k, v, { causal: true }));
  return linear(
    mixed,
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

export default model({ name: 'llama', config, context: (c) => c.max_position_embeddings }, (c) => {
  const table = weight('model.embed_tokens.weight', [c.vocab_size, c.hidden_size]);
  const x = layers(c.num_hidden_layers, 'model.layers', embed(tokens(), table), (h) => layer(h, c));
  const head = c.tie_word_embeddings ? table : weight('lm_head.weight', [c.vocab_size, c.hidden_size]);
  return linear(norm(x, 'model.norm', c), head);
});
