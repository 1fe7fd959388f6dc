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

/** Qwen3 (Yang et al. 2025), the dense ones: Llama with norms of the heads of q and k. The defaults are Qwen3-8B. */
const config = z.object({
  vocab_size: size.default(151936),
  hidden_size: size.default(4096),
  intermediate_size: size.default(12288),
  num_hidden_layers: depth.default(36),
  num_attention_heads: size.default(32),
  num_key_value_heads: size.default(8),
  head_dim: size.default(128),
  max_position_embeddings: size.default(40960),
  rms_norm_eps: z.number().positive().default(1e-6),
  tie_word_embeddings: z.boolean().default(false),
  hidden_act: z.literal('silu').default('silu'),
  attention_bias: z.literal(false).default(false),
  use_sliding_window: z.boolean().default(false),
  sliding_window: size.nullable().default(null),
  max_window_layers: z.int().nonnegative().default(36),
  layer_types: z.array(z.enum(['full_attention', 'sliding_attention'])).nullish(),
  rope_parameters: ropeParameters.prefault({ rope_theta: 1000000, rope_type: 'default' }),
});

type Config = z.output<typeof config>;

const norm = (x: Tensor, name: string, c: Config): Tensor =>
  rmsNorm(x, weight(`${name}.weight`, [c.hidden_size]), { eps: c.rms_norm_eps });

/** The upper layers slide, if any do. */
function windowOf(index: number, c: Config): number | undefined {
  const slides = c.layer_types ? c.layer_types[index] === 'sliding_attention' : index >= c.max_window_layers;
  return c.use_sliding_window && slides ? (c.sliding_window ?? undefined) : undefined;
}

function selfAttention(x: Tensor, index: number, c: Config): Tensor {
  const project = (name: string, heads: number): Tensor =>
    splitHeads(linear(x, weight(`self_attn.${name}.weight`, [heads * c.head_dim, c.hidden_size])), heads);
  const turn = ropeOptions(c.rope_parameters, c.head_dim, c.max_position_embeddings);
  const turned = (name: string, heads: number): Tensor => {
    const gain = weight(`self_attn.${name}_norm.weight`, [c.head_dim]);
    return rope(rmsNorm(project(`${name}_proj`, heads), gain, { eps: c.rms_norm_eps }), turn);
  };
  const q = turned('q', c.num_attention_heads);
  const k = turned('k', c.num_key_value_heads);
  const v = project('v_proj', c.num_key_value_heads);
  const mixed = mergeHeads(attention(q, k, v, { causal: true, window: windowOf(index, c) }));
  return linear(
    mixed,
    weight('self_attn.o_proj.weight', [c.hidden_size, c.num_attention_heads * c.head_dim]),
  );
}

function swiglu(x: Tensor, c: Config): Tensor {
  const gate = linear(x, weight('mlp.gate_proj.weight', [c.intermediate_size, c.hidden_size]));
  const up = linear(x, weight('mlp.up_proj.weight', [c.intermediate_size, c.hidden_size]));
  return linear(mul(silu(gate), up), weight('mlp.down_proj.weight', [c.hidden_size, c.intermediate_size]));
}

function layer(x: Tensor, index: number, c: Config): Tensor {
  const h = add(x, selfAttention(norm(x, 'input_layernorm', c), index, c));
  return add(h, swiglu(norm(h, 'post_attention_layernorm', c), c));
}

export default model(
  { name: 'qwen3', config, dtype: 'bf16', context: (c) => c.max_position_embeddings },
  (c) => {
    const table = weight('model.embed_tokens.weight', [c.vocab_size, c.hidden_size]);
    const x = layers(c.num_hidden_layers, 'model.layers', embed(tokens(), table), (h, i) => layer(h, i, c));
    const head = c.tie_word_embeddings ? table : weight('lm_head.weight', [c.vocab_size, c.hidden_size]);
    return linear(norm(x, 'model.norm', c), head);
  },
);
