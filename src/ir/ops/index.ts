import type { z } from 'zod';
import { attentionCombine, attentionParts } from './attention-parts.js';
import { attention, cacheAppend, rope } from './attention.js';
import { embed, linear } from './dense.js';
import { add, gelu, mul, scale, silu, tanh } from './elementwise.js';
import { input, ropeTable, state, weight } from './leaf.js';
import { argmax, last, layerNorm, rmsNorm, softmax } from './row.js';
import { sample, sampleParts } from './sample.js';
import { sparseLinear } from './sparse.js';
import { positions, reshape, split } from './shape.js';

/** Every op. Tables over ops are total over these keys, so the compiler lists what a new op still needs. */
export const ops = {
  input,
  weight,
  state,
  rope_table: ropeTable,
  embed,
  linear,
  sparse_linear: sparseLinear,
  rms_norm: rmsNorm,
  layer_norm: layerNorm,
  rope,
  cache_append: cacheAppend,
  attention,
  attention_parts: attentionParts,
  attention_combine: attentionCombine,
  silu,
  gelu,
  tanh,
  mul,
  add,
  scale,
  split,
  reshape,
  positions,
  softmax,
  last,
  argmax,
  sample_parts: sampleParts,
  sample,
} as const;

export type OpName = keyof typeof ops;
export type OpOf<N extends OpName> = (typeof ops)[N];
export type AttrsOf<N extends OpName> = z.output<OpOf<N>['attrs']>;
