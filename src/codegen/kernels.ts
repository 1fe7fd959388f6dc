import type { Kernel, KernelKind } from '../passes/entry.js';
import { ArgumentList } from './arguments.js';
import { times } from './expression.js';
import { ceilDiv, readsLast, fusedWords, siteOf, type Site, type Written } from './site.js';
import { writeLinear } from './write-linear.js';
import { writeMatmul } from './write-matmul.js';
import { writeSplit } from './write-split.js';
import { writeArgmax, writeLayerNorm, writeRmsNorm, writeSoftmax } from './write-rows.js';
import { writeSample, writeSampleParts } from './write-sample.js';
import { writeAttention, writeAttentionCombine, writeAttentionParts, writeRope } from './write-attention.js';
import { writeFlash } from './write-flash.js';
import { writeEmbed, writeElementwise } from './write-elements.js';

/** Everything that a template needs: literals and text, no decisions left. */
export interface KernelText {
  readonly template: string;
  /** Shape and variant in words, e.g. `matvec_f32_add_64x172`. */
  readonly name: string;
  readonly context: Readonly<Record<string, unknown>>;
  readonly list: ArgumentList;
  readonly threads: number;
  readonly grid: readonly [number, number, number];
}

/** The writer of each kind. */
const writers: { readonly [K in KernelKind]: (site: Site) => Written } = {
  embed: writeEmbed,
  linear: (site) => writeSplit(site) ?? writeMatmul(site) ?? writeLinear(site),
  rms_norm: writeRmsNorm,
  layer_norm: writeLayerNorm,
  rope: writeRope,
  attention: (site) => writeFlash(site) ?? writeAttention(site),
  attention_parts: writeAttentionParts,
  attention_combine: writeAttentionCombine,
  softmax: writeSoftmax,
  argmax: writeArgmax,
  sample_parts: writeSampleParts,
  sample: writeSample,
  elementwise: writeElementwise,
};

/** Decides the text of a kernel: names, literals, arguments, launch size. */
export function writeKernel(
  kernel: Kernel,
  { entry, layout, laneOrders, target }: Pick<Site, 'entry' | 'layout' | 'laneOrders' | 'target'>,
): KernelText {
  const list = new ArgumentList();
  const site = siteOf({ kernel, entry, layout, laneOrders, target, list }, kernel.outputs[0]);
  const { iteration } = site;
  const written = writers[kernel.kind](site);
  const { tokens = 1 } = written;
  const first = tokens > 1 ? 'first_token' : 't';
  const token =
    iteration.rows > 1
      ? [`const uint ${first} = ${times('group.x', tokens)};`, `if (${first} >= step.tokens) return;`]
      : [];
  const variant = [...(iteration.rows > 1 ? ['tokens'] : []), ...(readsLast(site) ? ['last'] : [])];
  return {
    template: written.template ?? kernel.kind,
    name: [written.name, ...variant].join('_'),
    context: {
      ...written.context,
      doc: `${written.doc}${fusedWords(kernel)}`,
      token,
      declarations: list.declarations,
    },
    list,
    threads: written.threads,
    grid: [ceilDiv(iteration.rows, tokens), written.tiles, 1],
  };
}
