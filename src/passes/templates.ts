import { ops, type OpName } from '../ir/ops/index.js';
import type { Node } from '../ir/graph.js';
import type { KernelKind } from './entry.js';

/** The template that computes each op by itself; leaves and views are not computed. */
export const kindOf: { readonly [N in OpName]: KernelKind | undefined } = {
  input: undefined,
  weight: undefined,
  state: undefined,
  rope_table: undefined,
  embed: 'embed',
  linear: 'linear',
  sparse_linear: 'linear',
  rms_norm: 'rms_norm',
  layer_norm: 'layer_norm',
  rope: 'rope',
  cache_append: 'elementwise',
  attention: 'attention',
  attention_parts: 'attention_parts',
  attention_combine: 'attention_combine',
  silu: 'elementwise',
  gelu: 'elementwise',
  tanh: 'elementwise',
  mul: 'elementwise',
  add: 'elementwise',
  scale: 'elementwise',
  split: undefined,
  reshape: undefined,
  positions: undefined,
  softmax: 'softmax',
  last: undefined,
  argmax: 'argmax',
  sample_parts: 'sample_parts',
  sample: 'sample',
};

/** What a template accepts inside its border. */
export interface Template {
  /** Ops that it can compute on its operand x before it reads it, once in every threadgroup. */
  readonly prologues: readonly OpName[];
  /** Whether elementwise nodes and a cache append can follow on each element before it is stored. */
  readonly epilogue: boolean;
  /** Whether `rope` can come first in the epilogue: the template then has both elements of a pair at hand. */
  readonly pairs: boolean;
  /** Whether it can compute several values of one shape from one operand, for an epilogue that reads them all. */
  readonly parts: boolean;
  /** Whether it can have several results, each with an epilogue of its own. */
  readonly results: boolean;
  /** Whether these may read matrices that are stored in different ways. Parts of one result may not. */
  readonly mixed: boolean;
  /** Why a value that it reads as its operand must be in memory, as a phrase before "%x". */
  readonly needs: string;
}

const plain = {
  prologues: [],
  epilogue: true,
  pairs: false,
  parts: false,
  results: false,
  mixed: false,
} as const;

export const templates: { readonly [K in KernelKind]: Template } = {
  embed: { ...plain, needs: 'a row of the table is chosen by' },
  linear: {
    prologues: ['rms_norm', 'attention_combine'],
    epilogue: true,
    pairs: true,
    parts: true,
    results: true,
    mixed: true,
    needs: 'every row of a product needs all of',
  },
  rms_norm: { ...plain, needs: 'a reduction over rows needs all of' },
  layer_norm: { ...plain, needs: 'a reduction over rows needs all of' },
  rope: { ...plain, needs: 'a rotation reads pairs of' },
  attention: { ...plain, needs: 'attention needs whole heads of' },
  attention_parts: { ...plain, epilogue: false, needs: 'attention needs whole heads of' },
  attention_combine: { ...plain, needs: 'parts of heads are combined from all of' },
  softmax: { ...plain, needs: 'a reduction over rows needs all of' },
  argmax: { ...plain, epilogue: false, needs: 'a reduction over rows needs all of' },
  sample_parts: { ...plain, epilogue: false, needs: 'a reduction over rows needs all of' },
  sample: { ...plain, epilogue: false, needs: 'a reduction over rows needs all of' },
  elementwise: { ...plain, needs: 'an elementwise kernel of its own reads' },
};

/** What the template that computes an op by itself accepts; undefined for leaves, views and elementwise ops. */
export function templateOf(node: Node): Template | undefined {
  const kind = ops[node.op].class === 'kernel' ? kindOf[node.op] : undefined;
  return kind && templates[kind];
}
