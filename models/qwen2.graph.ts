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

/** Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases of q, k and v. The defaults are Qwen2.5-7B. */
const config = z
  .object({
    vocab_size: size.default(152064),
    hidden_size: size.default(3584),
    intermediate_size: size.default(18944),
    num_hidden_layers: depth.default(28),
    num_attention_heads: size.default(28),
    num_key_value_heads: size.default(4),
    max_position_embeddings: size.default(131072),
    rms_norm_eps: z.number().positive().default(1e-6),
    tie_word_embeddings: z.boolean().default(false),
    hidden_act: z.literal('silu').default('silu'),
    use_sliding_window: z.boolean().default(false),
    sliding_window: size.nullable().default(null),
    max_window_layers: z.int().nonnegative().default(28),
    layer_types: z.array(z.enum(['full_attention', 'sliding_attention'])).nullish(),
    rope_parameters: ropeParameters.prefault({ rope_theta: 1000000, rope_type: 'default' }),
  })
  .transform((c) => ({ ...c, head_size: c.hidden_size / c.num_attention_heads }));

type Config = z.output<typeof config>;

const norm = (x: Tensor, name: string, c: Config): Tensor =>
  rmsNorm(x, weight(`${name}.weight`, [c.hidden_size]), { eps: c.rms_norm_eps });

/** The upper layers slide, if any do. */
function windowOf(index: number, c: Config): number | undefined {
  const slides = c.layer_types ? c.layer_types[index] === 'sliding_attention' : index >= c.max_window_layers;
  return c.use_sliding_window && slides ? (c.sliding_window ?? undefined) : undefined;
}

function selfAttention(x: Tensor, index: number, c: Config): Tensor {
  const project = (name: string, heads: number): Tensor => {
    const width = heads * c.head_size;
    const bias = weight(`self_attn.${name}.bias`, [width]);
    return splitHeads(linear(x, weight(`self_attn.${name}.weight`, [width, c.hidden_size]), bias), heads);
  };
  const turn = ropeOptions(c.rope_parameters, c.head_size, c.max_position_embeddings);
  const q = rope(project('q_proj', c.num_attention_heads), turn);
  const k = rope(project('k_proj', c.num_key_value_heads), turn);
  const v = project('v_proj', c.num_key_value_heads);
  const mixed = mergeHeads(attention(q, k, v, { causal: true, window: windowOf(index, c) }));
  return linear(mixed, weight('self_attn.o_proj.weight', [c.hidden_size, c.hidden_size]));
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
  { name: 'qwen2', config, dtype: 'bf16', context: (c) => c.max_position_embeddings },
  (c) => {
    const table = weight('model.embed_tokens.weight', [c.vocab_size, c.hidden_size]);
    const x = layers(c.num_hidden_layers, 'model.layers', embed(tokens(), table), (h, i) => layer(h, i, c));
    const head = c.tie_word_embeddings ? table : weight('lm_head.weight', [c.vocab_size, c.hidden_size]);
    return linear(norm(x, 'model.norm', c), head);
  },
);
