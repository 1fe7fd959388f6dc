/** Draws token ids from logits with a seeded generator: the same seed gives the same ids. */
export class Sampler {
  private state: number;

  /** A temperature of 0 always picks the likeliest id. */
  constructor(
    private readonly temperature: number,
    readonly seed: number = Math.floor(Math.random() * 2 ** 32),
  ) {
    this.state = seed >>> 0;
  }

  pick(logits: Float32Array): number {
    const greatest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    if (this.temperature === 0) return logits.indexOf(greatest);
    const weights = Float64Array.from(logits, (logit) => Math.exp((logit - greatest) / this.temperature));
    let left = this.uniform() * weights.reduce((a, b) => a + b, 0);
    return Math.max(
      0,
      weights.findIndex((weight) => (left -= weight) < 0),
    );
  }

  /** A number in [0, 1): mulberry32, a 32-bit generator of full period. */
  private uniform(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  }
}
