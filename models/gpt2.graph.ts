import {
  add,
  attention,
  depth,
  embed,
  gelu,
  layerNorm,
  layers,
  linear,
  mergeHeads,
  model,
  positions,
  scope,
  size,
  split,
  splitHeads,
  tokens,
  weight,
  z,
} from 'upgc';
import type { Tensor } from 'upgc';

/** GPT-2 (Radford et al. 2019): layer norms, learned positions, biases, matrices stored as [in, out]. The defaults are the smallest. */
const config = z
  .object({
    vocab_size: size.default(50257),
    n_embd: size.default(768),
    n_layer: depth.default(12),
    n_head: size.default(12),
    n_inner: size.nullish(),
    n_positions: size.default(1024),
    layer_norm_epsilon: z.number().positive().default(1e-5),
    // All three are the tanh form.
    activation_function: z.enum(['gelu_new', 'gelu_pytorch_tanh', 'gelu_fast']).default('gelu_new'),
    tie_word_embeddings: z.boolean().default(true),
    scale_attn_weights: z.literal(true).default(true),
    scale_attn_by_inverse_layer_idx: z.literal(false).default(false),
    add_cross_attention: z.literal(false).default(false),
  })
  .transform((c) => ({ ...c, inner: c.n_inner ?? 4 * c.n_embd }));

type Config = z.output<typeof config>;

const norm = (x: Tensor, name: string, c: Config): Tensor =>
  layerNorm(x, weight(`${name}.weight`, [c.n_embd]), {
    bias: weight(`${name}.bias`, [c.n_embd]),
    eps: c.layer_norm_epsilon,
  });

const dense = (x: Tensor, name: string, width: number): Tensor =>
  linear(
    x,
    weight(`${name}.weight`, [width, Number(x.type.shape[1])], { transposed: true }),
    weight(`${name}.bias`, [width]),
  );

function selfAttention(x: Tensor, c: Config): Tensor {
  const [q, k, v] = split(dense(x, 'attn.c_attn', 3 * c.n_embd), [c.n_embd, c.n_embd, c.n_embd]);
  const heads = (part: Tensor): Tensor => splitHeads(part, c.n_head);
  const mixed = attention(heads(q), heads(k), heads(v), { causal: true });
  return dense(mergeHeads(mixed), 'attn.c_proj', c.n_embd);
}

const mlp = (x: Tensor, c: Config): Tensor =>
  dense(gelu(dense(x, 'mlp.c_fc', c.inner)), 'mlp.c_proj', c.n_embd);

function layer(x: Tensor, c: Config): Tensor {
  const h = add(x, selfAttention(norm(x, 'ln_1', c), c));
  return add(h, mlp(norm(h, 'ln_2', c), c));
}

export default model({ name: 'gpt2', config, context: (c) => c.n_positions, prefix: 'transformer' }, (c) => {
  const table = weight('transformer.wte.weight', [c.vocab_size, c.n_embd]);
  const x = scope('transformer', () => {
    const embedded = add(embed(tokens(), table), positions(weight('wpe.weight', [c.n_positions, c.n_embd])));
    return norm(
      layers(c.n_layer, 'h', embedded, (h) => layer(h, c)),
      'ln_f',
      c,
    );
  });
  return linear(x, c.tie_word_embeddings ? table : weight('lm_head.weight', [c.vocab_size, c.n_embd]));
});
