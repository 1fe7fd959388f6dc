import { CompilerBug, UserError } from '../diagnostic.js';
import type { Session } from './session.js';

export interface EvaluateOptions {
  /** Predictions of a window; by default the context of the build (for two, the shorter one). */
  readonly context?: number;
  /** Predictions made so far, and in all. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** How well a build predicts a text. */
export interface Evaluation {
  /** The mean negative log-likelihood of a token, in nats. */
  readonly nll: number;
  /** e to the power of `nll`. */
  readonly perplexity: number;
  /** Predictions. */
  readonly tokens: number;
  /** Predictions per second of the device's time. */
  readonly tokensPerSecond: number;
}

/** How far a build is from a reference, and how well each predicts the text. */
export interface Comparison extends Evaluation {
  readonly reference: Evaluation;
  /** The mean of KL(reference ‖ build) over the positions, in nats. */
  readonly klDivergence: number;
  /** The share of positions at which both find the same token the likeliest. */
  readonly top1Agreement: number;
}

/**
 * The text in windows: `context` + 1 tokens from every `context`-th on, the last perhaps fewer. Each window is a text of
 * its own, so its first predictions have little to go by; every token but the first of the text is predicted once.
 * @throws {UserError} when there is nothing to predict, or a window does not fit the build
 */
export async function evaluate(
  session: Session,
  tokens: readonly number[],
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  const scorer = new Scorer(session);
  for (const window of windows([session], tokens, options))
    for await (const next of scorer.positions(window)) scorer.count(next);
  return scorer.evaluation();
}

/**
 * Evaluates `build` as `evaluate` does, and how far its predictions are from those of `reference`, position by position.
 * @throws {UserError} as `evaluate`, or when the builds have vocabularies of different sizes
 */
export async function compareBuilds(
  reference: Session,
  build: Session,
  tokens: readonly number[],
  options: EvaluateOptions = {},
): Promise<Comparison> {
  const [size, other] = [reference.plan.model.vocabulary, build.plan.model.vocabulary];
  if (size !== other) {
    throw new UserError(`the builds cannot be compared: their vocabularies have ${size} and ${other} ids`);
  }
  const [first, second] = [new Scorer(reference), new Scorer(build)];
  let divergence = 0;
  let agreeing = 0;
  for (const window of windows([reference, build], tokens, options)) {
    const others = second.positions(window);
    for await (const wanted of first.positions(window)) {
      const found = await others.next();
      if (found.done) throw new CompilerBug('a window has two lengths');
      divergence += klDivergence(wanted.logits, found.value.logits);
      if (likeliest(wanted.logits) === likeliest(found.value.logits)) agreeing++;
      first.count(wanted);
      second.count(found.value);
    }
  }
  const evaluation = second.evaluation();
  return {
    ...evaluation,
    reference: first.evaluation(),
    klDivergence: divergence / evaluation.tokens,
    top1Agreement: agreeing / evaluation.tokens,
  };
}

/** The windows, reporting progress as each is taken. */
function* windows(
  sessions: readonly Session[],
  tokens: readonly number[],
  { context, onProgress }: EvaluateOptions,
): Generator<readonly number[]> {
  const most = Math.min(...sessions.map((session) => session.plan.context));
  const length = context ?? most;
  if (!Number.isInteger(length) || length < 1 || length > most) {
    throw new UserError(`a window must be of 1 to ${most} tokens, not ${length}`, {
      notes: [`the build's context is ${most}: compile with a longer --context`],
    });
  }
  const total = tokens.length - 1;
  if (total < 1) {
    throw new UserError('the text is too short: there is no token to predict', {
      notes: ['a text of at least two tokens is needed'],
    });
  }
  for (let start = 0; start < total; start += length) {
    onProgress?.(start, total);
    yield tokens.slice(start, start + length + 1);
  }
  onProgress?.(total, total);
}

/** The logits of a position, and the token that follows it. */
interface Position {
  readonly logits: Float32Array;
  readonly next: number;
}

class Scorer {
  private total = 0;
  private tokens = 0;
  /** Time that the session took. */
  private ms = 0;

  constructor(private readonly session: Session) {}

  async *positions(window: readonly number[]): AsyncGenerator<Position, undefined> {
    const { vocabulary } = this.session.plan.model;
    const parts = this.session.scoreInParts(window.slice(0, -1));
    for (let next = 1; next < window.length;) {
      const began = performance.now();
      const part = await parts.next();
      this.ms += performance.now() - began;
      if (part.done) throw new UserError('the session was used by another call during the evaluation');
      for (let at = 0; at < part.value.length; at += vocabulary) {
        yield { logits: part.value.subarray(at, at + vocabulary), next: window[next++] ?? 0 };
      }
    }
  }

  count({ logits, next }: Position): void {
    this.total += logSumExp(logits) - (logits[next] ?? NaN);
    this.tokens++;
  }

  evaluation(): Evaluation {
    const nll = this.total / this.tokens;
    return {
      nll,
      perplexity: Math.exp(nll),
      tokens: this.tokens,
      tokensPerSecond: this.ms > 0 ? (this.tokens / this.ms) * 1000 : 0,
    };
  }
}

/** log Σ exp x, in float64. */
function logSumExp(logits: Float32Array): number {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  return largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
}

/** KL(p ‖ q) of the distributions that two rows of logits stand for, in nats. */
function klDivergence(p: Float32Array, q: Float32Array): number {
  const [sizeP, sizeQ] = [logSumExp(p), logSumExp(q)];
  return p.reduce((sum, logit, i) => {
    const log = logit - sizeP;
    const probability = Math.exp(log);
    // A token without probability adds nothing, whatever the other makes of it.
    return probability === 0 ? sum : sum + probability * (log - ((q[i] ?? NaN) - sizeQ));
  }, 0);
}

/** The first of the largest. */
function likeliest(logits: Float32Array): number {
  return logits.reduce((best, logit, i) => (logit > (logits[best] ?? NaN) ? i : best), 0);
}
