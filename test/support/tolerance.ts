/** Unit roundoff of f32. */
const unitRoundoff = 2 ** -24;

/**
 * How far two f32 evaluations of one model's logits may differ when they sum in different orders. Each of the sums on
 * the way to a logit rounds with a relative error of at most γ_K = K·u (Higham, Accuracy and Stability, §3.1), twice
 * for two evaluations; the residual stream carries them to the logits, whose size bounds the terms.
 */
export function logitTolerance(model: {
  readonly layers: number;
  readonly width: number;
  readonly hidden: number;
  readonly context: number;
  readonly logits: readonly number[];
}): number {
  const { layers, width, hidden, context, logits } = model;
  // Per layer: two norms, qkv, output, gate/up (width terms each); down (hidden); attention (context); then norm and head.
  const terms = layers * (5 * width + hidden + context) + 2 * width;
  const largest = logits.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  return 2 * terms * unitRoundoff * largest;
}

/**
 * How much further logits may be from float64 where chunks are multiplied in half: of every product on the way to a logit
 * (four a layer, and the last) both operands are rounded, each by at most 2^-11 of itself. Independent roundings add up as
 * the root of their number (Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, 2019).
 */
export function halfTolerance(layers: number, largestLogit: number): number {
  return Math.sqrt(2 * (4 * layers + 1)) * 2 ** -11 * largestLogit;
}
