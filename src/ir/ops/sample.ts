import { z } from 'zod';
import { defineOp, reject } from '../define.js';
import type { NdArray } from '../define.js';
import { elementCount, formatType, i32, sameType, f32, type TensorType } from '../type.js';

/** Elements of the `sampling` input, in order. A top_k of 0, a top_p of 1 and a min_p of 0 leave all ids in. */
export const samplingFields = ['temperature', 'topK', 'topP', 'minP'] as const;

const multiplier = 0xd256d193;
const weyl = 0x9e3779b9;

/** The upper half of a product of two unsigned 32-bit numbers. */
function multiplyHigh(a: number, b: number): number {
  // By halves of b, so that every product is exact in float64.
  const low = Math.floor((a * (b & 0xffff)) / 2 ** 16);
  return Math.floor((a * (b >>> 16) + low) / 2 ** 16);
}

/** Philox 2x32-10 (Salmon et al. 2011): 64 random bits for each value of a 64-bit counter and a 32-bit key. */
export function philox(low: number, high: number, key: number): readonly [number, number] {
  let [c0, c1, k] = [low >>> 0, high >>> 0, key >>> 0];
  for (let round = 0; round < 10; round++) {
    [c0, c1] = [(multiplyHigh(multiplier, c0) ^ k ^ c1) >>> 0, Math.imul(multiplier, c0) >>> 0];
    k = (k + weyl) >>> 0;
  }
  return [c0, c1];
}

/** -ln(-ln u) of a uniform u in (0, 1) with 23 bits, which f32 holds exactly: a standard Gumbel variate. */
export function gumbel(id: number, position: number, seed: number): number {
  const [bits] = philox(id, position, seed);
  return -Math.log(-Math.log(((bits >>> 9) + 0.5) * 2 ** -23));
}

/**
 * Which ids may be drawn: those among the `topK` likeliest (equals of the last one too), of these those before which
 * less than `topP` of the probability lies, and of these those at least `minP` times as likely as the likeliest.
 */
export function candidates(logits: Float64Array, sampling: Float64Array): readonly boolean[] {
  const [temperature = 0, topK = 0, topP = 1, minP = 0] = sampling;
  const order = [...logits.keys()].sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0));
  const greatest = logits[order[0] ?? 0] ?? 0;
  const weightOf = (id: number): number => Math.exp(((logits[id] ?? 0) - greatest) / temperature);
  const last = topK > 0 ? (logits[order[topK - 1] ?? -1] ?? -Infinity) : -Infinity;
  const kept = order.filter((id) => (logits[id] ?? 0) >= last);
  const total = kept.reduce((sum, id) => sum + weightOf(id), 0);
  const allowed = new Array<boolean>(logits.length).fill(false);
  let before = 0;
  kept.forEach((id, i) => {
    const previous = kept[i - 1];
    if (previous !== undefined && logits[previous] !== logits[id])
      before = kept.slice(0, i).reduce((sum, other) => sum + weightOf(other), 0);
    allowed[id] = (topP >= 1 || before < topP * total) && weightOf(id) >= minP;
  });
  return allowed;
}

interface Operands<T> {
  readonly logits: T;
  readonly tokens: T;
  readonly position: T;
  readonly sampling: T;
  readonly seed: T;
}

function checkOperands({ logits, tokens, position, sampling, seed }: Operands<TensorType>): void {
  if (logits.dtype !== 'f32' || logits.shape.length !== 2 || typeof logits.shape[1] !== 'number')
    reject(`logits must be f32[R, V], not ${formatType(logits)}`);
  if (tokens.dtype !== 'i32' || tokens.shape.length !== 1)
    reject(`tokens must be i32[T], not ${formatType(tokens)}`);
  if (!sameType(position, i32())) reject(`position must be i32[], not ${formatType(position)}`);
  if (!sameType(sampling, f32(samplingFields.length)))
    reject(`sampling must be f32[${samplingFields.length}], not ${formatType(sampling)}`);
  if (!sameType(seed, i32())) reject(`seed must be i32[], not ${formatType(seed)}`);
}

/** The last row of logits, and how much each id scores: its logit with the noise of the next position. */
function scoring({ logits, tokens, position, sampling, seed }: Operands<NdArray>) {
  const [temperature = 0] = sampling.data;
  const row = logits.data.slice(logits.data.length - (logits.shape[1] ?? 0));
  const next = (position.data[0] ?? 0) + tokens.data.length;
  const score = (logit: number, id: number): number =>
    temperature > 0 ? logit + temperature * gumbel(id, next, seed.data[0] ?? 0) : logit;
  return { temperature, row, score };
}

export const sampleParts = defineOp({
  name: 'sample_parts',
  doc:
    'The winners that sample would have in `parts` equal parts of the vocabulary if every id were a candidate: the greatest score ' +
    'of each part and its id, -∞ and the size of the vocabulary where a part is empty. Operands as of sample → f32[1, parts, 2].',
  class: 'kernel',
  inputs: ['logits', 'tokens', 'position', 'sampling', 'seed'],
  attrs: z.object({ parts: z.int().positive() }),
  tokenwise: false,
  infer: (operands, { parts }) => {
    checkOperands(operands);
    return f32(1, parts, 2);
  },
  evaluate: (operands, { parts }) => {
    const { row, score } = scoring(operands);
    const size = Math.ceil(row.length / parts);
    const winners = Array.from({ length: parts }, (_, part) => {
      let [most, best] = [-Infinity, row.length];
      for (let id = part * size; id < Math.min(row.length, (part + 1) * size); id++) {
        const own = score(row[id] ?? -Infinity, id);
        if (own > most) [most, best] = [own, id];
      }
      return [most, best];
    });
    return Float64Array.from(winners.flat());
  },
  cost: ({ logits }) => ({ flops: 64 * elementCount(logits), reduction: 1 }),
});

export const sample = defineOp({
  name: 'sample',
  doc:
    'The id of the token that follows: drawn from softmax(logits / temperature) among the candidates of top-k, top-p and ' +
    'min-p by the Gumbel-max trick (Gumbel 1954), whose noise depends on seed, position and id alone; the likeliest when the ' +
    'temperature is 0. Of logits f32[R, V] the last row counts; tokens i32[T], position i32[] of the first token, sampling f32[4], seed i32[] → i32[1]. ' +
    'With `parts`, what sample_parts makes of the same operands, a draw from all ids need not look at the logits.',
  class: 'kernel',
  inputs: ['logits', 'tokens', 'position', 'sampling', 'seed', 'parts?'],
  attrs: z.object({}),
  tokenwise: false,
  infer: ({ parts, ...operands }) => {
    checkOperands(operands);
    if (parts && (parts.dtype !== 'f32' || parts.shape.length !== 3 || parts.shape[2] !== 2))
      reject(`parts must be f32[1, P, 2], not ${formatType(parts)}`);
    return i32(1);
  },
  evaluate: (operands) => {
    const { temperature, row, score } = scoring(operands);
    const allowed = temperature > 0 ? candidates(row, operands.sampling.data) : undefined;
    let best = 0;
    let most = -Infinity;
    row.forEach((logit, id) => {
      if (allowed && allowed[id] !== true) return;
      const own = score(logit, id);
      if (own > most) [best, most] = [id, own];
    });
    return Float64Array.of(best);
  },
  cost: ({ logits }) => ({ flops: 64 * elementCount(logits), reduction: 1 }),
});
