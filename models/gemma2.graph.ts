import {
  add,
  attention,
  depth,
  embed,
  gelu,
  layers,
  linear,
  mergeHeads,
  model,
  mul,
  rmsNorm,
  rope,
  ropeOptions,
  ropeParameters,
  scale,
  size,
  splitHeads,
  tanh,
  tokens,
  weight,
  z,
} from 'upgc';
import type { Tensor } from 'upgc';

/**
 * Gemma 2 (Gemma Team 2024): a window in every other layer, norms before and after each block, soft caps on scores and
 * logits, scaled embeddings; norms are stored less 1. The defaults are Gemma 2 9B.
 */
const config = z.object({
  vocab_size: size.default(256000),
  hidden_size: size.default(3584),
  intermediate_size: size.default(14336),
  num_hidden_layers: depth.default(42),
  num_attention_heads: size.default(16),
  num_key_value_heads: size.default(8),
  head_dim: size.default(256),
  query_pre_attn_scalar: z.number().positive().default(256),
  max_position_embeddings: size.default(8192),
  sliding_window: size.default(4096),
  layer_types: z.array(z.enum(['full_attention', 'sliding_attention'])).nullish(),
  attn_logit_softcapping: z.number().positive().nullable().default(50),
  final_logit_softcapping: z.number().positive().nullable().default(30),
  rms_norm_eps: z.number().positive().default(1e-6),
  /** 0 where the checkpoint's norms have the 1, as in GGUF files. */
  norm_offset: z.literal([0, 1]).default(1),
  tie_word_embeddings: z.boolean().default(true),
  hidden_activation: z.literal('gelu_pytorch_tanh').default('gelu_pytorch_tanh'),
  attention_bias: z.literal(false).default(false),
  use_bidirectional_attention: z.literal(false).nullish(),
  rope_parameters: ropeParameters.prefault({ rope_theta: 10000, rope_type: 'default' }),
});

type Config = z.output<typeof config>;

const norm = (x: Tensor, name: string, c: Config): Tensor =>
  rmsNorm(x, weight(`${name}.weight`, [c.hidden_size]), { eps: c.rms_norm_eps, offset: c.norm_offset });

/** The first layer slides, the second does not, and so on. */
function windowOf(index: number, c: Config): number | undefined {
  const slides = c.layer_types ? c.layer_types[index] === 'sliding_attention' : index % 2 === 0;
  return slides ? c.sliding_window : undefined;
}

function selfAttention(x: Tensor, index: number, c: Config): Tensor {
  const project = (name: string, heads: number): Tensor =>
    splitHeads(linear(x, weight(`self_attn.${name}.weight`, [heads * c.head_dim, c.hidden_size])), heads);
  const turn = ropeOptions(c.rope_parameters, c.head_dim, c.max_position_embeddings);
  const q = rope(project('q_proj', c.num_attention_heads), turn);
  const k = rope(project('k_proj', c.num_key_value_heads), turn);
  const mixed = attention(q, k, project('v_proj', c.num_key_value_heads), {
    causal: true,
    scale: c.query_pre_attn_scalar ** -0.5,
    window: windowOf(index, c),
    softcap: c.attn_logit_softcapping ?? undefined,
  });
  const width = c.num_attention_heads * c.head_dim;
  return linear(mergeHeads(mixed), weight('self_attn.o_proj.weight', [c.hidden_size, width]));
}

function geglu(x: Tensor, c: Config): Tensor {
  const gate = linear(x, weight('mlp.gate_proj.weight', [c.intermediate_size, c.hidden_size]));
  const up = linear(x, weight('mlp.up_proj.weight', [c.intermediate_size, c.hidden_size]));
  return linear(mul(gelu(gate), up), weight('mlp.down_proj.weight', [c.hidden_size, c.intermediate_size]));
}

function layer(x: Tensor, index: number, c: Config): Tensor {
  const mixed = selfAttention(norm(x, 'input_layernorm', c), index, c);
  const h = add(x, norm(mixed, 'post_attention_layernorm', c));
  return add(h, norm(geglu(norm(h, 'pre_feedforward_layernorm', c), c), 'post_feedforward_layernorm', c));
}

/** cap · tanh(x / cap) */
const softcap = (x: Tensor, cap: number | null): Tensor =>
  cap === null ? x : scale(tanh(scale(x, { by: 1 / cap })), { by: cap });

export default model(
  { name: 'gemma2', config, dtype: 'bf16', context: (c) => c.max_position_embeddings },
  (c) => {
    const table = weight('model.embed_tokens.weight', [c.vocab_size, c.hidden_size]);
    const embedded = scale(embed(tokens(), table), { by: Math.sqrt(c.hidden_size) });
    const x = layers(c.num_hidden_layers, 'model.layers', embedded, (h, i) => layer(h, i, c));
    const head = c.tie_word_embeddings ? table : weight('lm_head.weight', [c.vocab_size, c.hidden_size]);
    return softcap(linear(norm(x, 'model.norm', c), head), c.final_logit_softcapping);
  },
);
