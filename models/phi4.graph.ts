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
  split,
  splitHeads,
  tokens,
  weight,
  z,
} from 'upgc';
import type { Tensor } from 'upgc';

/**
 * The Phi-3 architecture: Phi-3, Phi-4 (Abdin et al. 2024) and Phi-4-mini. Fused qkv and gate_up projections.
 * The defaults are microsoft/phi-4.
 */
const config = z
  .object({
    vocab_size: size.default(100352),
    hidden_size: size.default(5120),
    intermediate_size: size.default(17920),
    num_hidden_layers: depth.default(40),
    num_attention_heads: size.default(40),
    num_key_value_heads: size.default(10),
    max_position_embeddings: size.default(16384),
    rms_norm_eps: z.number().positive().default(1e-5),
    tie_word_embeddings: z.boolean().default(false),
    hidden_act: z.literal('silu').default('silu'),
    sliding_window: size.nullable().default(null),
    attention_bias: z.literal(false).default(false),
    rope_parameters: ropeParameters.prefault({ rope_theta: 250000, rope_type: 'default' }),
  })
  .transform((c) => ({ ...c, head_size: c.hidden_size / c.num_attention_heads }));

type Config = z.output<typeof config>;

const norm = (x: Tensor, name: string, c: Config): Tensor =>
  rmsNorm(x, weight(`${name}.weight`, [c.hidden_size]), { eps: c.rms_norm_eps });

function selfAttention(x: Tensor, c: Config): Tensor {
  const kvSize = c.num_key_value_heads * c.head_size;
  const qkv = linear(x, weight('self_attn.qkv_proj.weight', [c.hidden_size + 2 * kvSize, c.hidden_size]));
  const [q, k, v] = split(qkv, [c.hidden_size, kvSize, kvSize]);
  const turn = ropeOptions(c.rope_parameters, c.head_size, c.max_position_embeddings);
  const mixed = attention(
    rope(splitHeads(q, c.num_attention_heads), turn),
    rope(splitHeads(k, c.num_key_value_heads), turn),
    splitHeads(v, c.num_key_value_heads),
    { causal: true, window: c.sliding_window ?? undefined },
  );
  return linear(mergeHeads(mixed), weight('self_attn.o_proj.weight', [c.hidden_size, c.hidden_size]));
}

function swiglu(x: Tensor, c: Config): Tensor {
  const gateUp = linear(x, weight('mlp.gate_up_proj.weight', [2 * c.intermediate_size, c.hidden_size]));
  const [gate, up] = split(gateUp, [c.intermediate_size, c.intermediate_size]);
  return linear(mul(silu(gate), up), weight('mlp.down_proj.weight', [c.hidden_size, c.intermediate_size]));
}

function layer(x: Tensor, c: Config): Tensor {
  const h = add(x, selfAttention(norm(x, 'input_layernorm', c), c));
  return add(h, swiglu(norm(h, 'post_attention_layernorm', c), c));
}

export default model(
  { name: 'phi4', config, dtype: 'bf16', context: (c) => c.max_position_embeddings },
  (c) => {
    const table = weight('model.embed_tokens.weight', [c.vocab_size, c.hidden_size]);
    const x = layers(c.num_hidden_layers, 'model.layers', embed(tokens(), table), (h) => layer(h, c));
    const head = c.tie_word_embeddings ? table : weight('lm_head.weight', [c.vocab_size, c.hidden_size]);
    return linear(norm(x, 'model.norm', c), head);
  },
);
