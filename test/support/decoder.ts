/**
 * A decoder of the Llama kind in plain numbers, written from the papers and config.json alone: one token at a time, no
 * graph, no ops of ours. What families add to it is said in `Decoder`.
 */
export interface Decoder {
  readonly hidden: number;
  readonly heads: number;
  readonly groups: number;
  readonly headSize: number;
  readonly layers: number;
  readonly eps: number;
  readonly theta: number;
  /** How many tokens a token of a layer sees, its own included. */
  readonly window: (layer: number) => number;
  /** What scores are multiplied by. */
  readonly scoreScale: number;
  /** What is made of a score, and of a logit. */
  readonly score?: (x: number) => number;
  readonly logit?: (x: number) => number;
  /** A norm's factor, of what is stored. */
  readonly gain?: (stored: number) => number;
  readonly activation: (x: number) => number;
  /** Whether the heads of q and k are normed before they turn. */
  readonly headNorms?: boolean;
  /** Names of the norms before attention and MLP, and of those after, if there are any. */
  readonly before: readonly [string, string];
  readonly after?: readonly [string, string];
  /** What embeddings are multiplied by, and what each block adds. */
  readonly embedding?: number;
  readonly residual?: number;
}

/** Tensors of a checkpoint, by name. */
export type Tensors = ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: Float32Array }>;

const same = (x: number): number => x;
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const plus = (a: readonly number[], b: readonly number[], by = 1): number[] =>
  a.map((x, i) => x + by * (b[i] ?? NaN));
const dot = (a: readonly number[], b: readonly number[]): number => sum(a.map((x, i) => x * (b[i] ?? NaN)));

/** Logits of every position. */
export function decode(m: Decoder, tensors: Tensors, ids: readonly number[]): number[] {
  const { gain = same, score = same, logit = same, residual = 1 } = m;
  const rowsOf = (name: string): number[][] => {
    const tensor = tensors.get(name);
    const [rows = 0, columns = 1] = tensor?.shape ?? [];
    return Array.from({ length: rows }, (_, row) => [
      ...(tensor?.data.subarray(row * columns, (row + 1) * columns) ?? []),
    ]);
  };
  const matrices = new Map([...tensors.keys()].map((name) => [name, rowsOf(name)] as const));
  const matrix = (name: string): number[][] => matrices.get(`${name}.weight`) ?? [];
  const times = (name: string, x: readonly number[]): number[] => matrix(name).map((row) => dot(row, x));
  const norm = (name: string, x: readonly number[]): number[] => {
    const size = Math.sqrt(sum(x.map((value) => value ** 2)) / x.length + m.eps);
    return x.map((value, i) => (value / size) * gain(matrix(name)[i]?.[0] ?? NaN));
  };
  const heads = (x: readonly number[], count: number): number[][] =>
    Array.from({ length: count }, (_, h) => x.slice(h * m.headSize, (h + 1) * m.headSize));
  const turned = (x: readonly number[], position: number): number[] => {
    const half = m.headSize / 2;
    return x.map((value, i) => {
      const angle = position * m.theta ** ((-2 * (i % half)) / m.headSize);
      const partner = i < half ? -(x[i + half] ?? NaN) : (x[i - half] ?? NaN);
      return value * Math.cos(angle) + partner * Math.sin(angle);
    });
  };
  const cache = Array.from({ length: m.layers }, () => ({ k: [] as number[][][], v: [] as number[][][] }));
  const attend = (layer: number, x: readonly number[], position: number): number[] => {
    const at = `model.layers.${layer}.self_attn`;
    const prepared = (name: string, count: number): number[][] =>
      heads(times(`${at}.${name}_proj`, x), count).map((head) =>
        turned(m.headNorms ? norm(`${at}.${name}_norm`, head) : head, position),
      );
    const { k = [], v = [] } = cache[layer] ?? {};
    k.push(prepared('k', m.groups));
    v.push(heads(times(`${at}.v_proj`, x), m.groups));
    const first = Math.max(0, position + 1 - m.window(layer));
    const mixed = prepared('q', m.heads).flatMap((query, h) => {
      const group = Math.floor((h * m.groups) / m.heads);
      const powers = k
        .slice(first)
        .map((key) => Math.exp(score(m.scoreScale * dot(query, key[group] ?? []))));
      return query.map(
        (_, i) =>
          sum(v.slice(first).map((value, j) => (powers[j] ?? NaN) * (value[group]?.[i] ?? NaN))) /
          sum(powers),
      );
    });
    return times(`${at}.o_proj`, mixed);
  };
  const mlp = (layer: number, x: readonly number[]): number[] => {
    const at = `model.layers.${layer}.mlp`;
    const up = times(`${at}.up_proj`, x);
    const gate = times(`${at}.gate_proj`, x);
    return times(
      `${at}.down_proj`,
      gate.map((value, i) => m.activation(value) * (up[i] ?? NaN)),
    );
  };
  return ids.flatMap((id, position) => {
    let x = (matrix('model.embed_tokens')[id] ?? []).map((value) => value * (m.embedding ?? 1));
    for (let layer = 0; layer < m.layers; layer++) {
      const named = (name: string): string => `model.layers.${layer}.${name}`;
      const mixed = attend(layer, norm(named(m.before[0]), x), position);
      x = plus(x, m.after ? norm(named(m.after[0]), mixed) : mixed, residual);
      const added = mlp(layer, norm(named(m.before[1]), x));
      x = plus(x, m.after ? norm(named(m.after[1]), added) : added, residual);
    }
    const head = matrices.has('lm_head.weight') ? 'lm_head' : 'model.embed_tokens';
    return times(head, norm('model.norm', x)).map(logit);
  });
}
