import { Unsupported, UserError } from '../diagnostic.js';
import { samplingFields } from '../ir/ops/sample.js';
import { isOp, makeGraph, makeNode, rewrite, type Graph, type Node, type Program } from '../ir/graph.js';
import { elementTypeOf, formatType, type DType, type Dim } from '../ir/type.js';

/** What keys and values can be cached as. */
export const cacheDtypes = ['f32', 'f16'] as const satisfies readonly DType[];
export type CacheDType = (typeof cacheDtypes)[number];

export interface CacheOptions {
  /** Tokens that a text may have. */
  readonly context: number;
  /** Most tokens of one prefill step. */
  readonly chunk: number;
  /** f32 by default; f16: keys and values are rounded as they are appended. */
  readonly kv?: CacheDType | undefined;
  /** Values of the model that every step also keeps, by the name of their cache: a ring of `chunk` rows. */
  readonly kept?: ReadonlyMap<Node, string> | undefined;
}

/**
 * Turns the stateless model over T tokens into the entry points that generation needs. Keys and values of every
 * causal attention are appended to state tensors `kv`[C, G, D] at `position`, and attention reads those. With a window
 * they are rings [R, G, D] of R = window + chunk rows, where R < C: the oldest key that the first token of a step
 * sees is not yet overwritten by the last, and a step may begin up to `chunk` tokens before the end of the text.
 *   decode   one token  → its logits and the next id
 *   prefill  ≤ chunk tokens → the last token's logits and the next id
 *   score    ≤ chunk tokens → the logits of every token
 */
export function insertKvCache(graph: Graph, { context, chunk, kv = 'f32', kept }: CacheOptions): Program {
  const position = makeNode('input', [], { name: 'position', dtype: 'i32', shape: [] });
  const updates = new Map<Extract<Node, { readonly op: 'state' }>, Node>();
  const appended = (x: Node, name: string, rows: Dim, type: CacheDType): Node => {
    const shape = [rows, ...x.type.shape.slice(1)];
    const own = elementTypeOf(x.type);
    const cache = makeNode('state', [], { name, dtype: own === 'f32' ? type : own, shape }, x.origin);
    const append = makeNode('cache_append', [cache, x, position], {}, { ...x.origin, name: undefined });
    if (isOp(cache, 'state')) updates.set(cache, append);
    return append;
  };
  let attentions = 0;
  const withCaches = (node: Node): Node => {
    if (isOp(node, 'last')) {
      throw new Unsupported(
        'last: which token is the last depends on the step, so a model cannot ask for it',
        {
          span: node.origin.span,
          notes: ['return the logits of every token: generation takes the last row by itself'],
        },
      );
    }
    if (isOp(node, 'positions')) {
      requireRows(node, context);
      return makeNode('positions', [...node.inputs.slice(0, 1), position], node.attrs, node.origin);
    }
    if (isOp(node, 'rope', 'attention')) requireTokens(node);
    if (isOp(node, 'rope'))
      return makeNode('rope', [...node.inputs.slice(0, 2), position], node.attrs, node.origin);
    if (!isOp(node, 'attention')) return node;
    const [q, k, v] = node.inputs;
    if (!node.attrs.causal || !q || !k || !v) {
      throw new Unsupported('attention that is not causal cannot be generated from token by token', {
        span: node.origin.span,
        notes: ['pass { causal: true }'],
      });
    }
    const { window } = node.attrs;
    const rows = window !== undefined && window + chunk < context ? window + chunk : 'C';
    const index = attentions++;
    const inputs = [
      q,
      appended(k, `k_cache.${index}`, rows, kv),
      appended(v, `v_cache.${index}`, rows, kv),
      position,
    ];
    return makeNode('attention', inputs, node.attrs, node.origin);
  };
  const cached = rewrite(graph, (node, original) => {
    const made = withCaches(node);
    const name = kept?.get(original);
    if (name !== undefined) appended(made, name, chunk < context ? chunk : 'C', 'f32');
    return made;
  });
  const logits = cached.outputs.get('logits');
  if (!logits) throw new Unsupported(`model ${graph.name} has no logits`);
  const entry = (tokens: number, outputs: readonly (readonly [string, Node])[]): Graph =>
    makeGraph({ name: graph.name, outputs: new Map(outputs), updates, dims: { T: tokens, C: context } });
  const tokens = cached.nodes.find((node) => isOp(node, 'input') && node.attrs.name === 'tokens');
  if (!tokens) throw new Unsupported(`the logits of model ${graph.name} do not depend on its tokens`);
  const sampling = makeNode('input', [], { name: 'sampling', dtype: 'f32', shape: [samplingFields.length] });
  const seed = makeNode('input', [], { name: 'seed', dtype: 'i32', shape: [] });
  const sampled = (row: Node): readonly (readonly [string, Node])[] => [
    ['logits', row],
    ['next', makeNode('sample', [row, tokens, position, sampling, seed], {})],
  ];
  return {
    name: graph.name,
    entries: new Map([
      ['decode', entry(1, sampled(logits))],
      ['prefill', entry(chunk, sampled(makeNode('last', [logits], {})))],
      ['score', entry(chunk, [['logits', logits]])],
    ]),
  };
}

/** A table of positions ends; the context must not go past it. */
function requireRows({ inputs: [table], origin }: Node, context: number): void {
  const rows = Number(table?.type.shape[0]);
  if (context <= rows) return;
  throw new UserError(`the context of ${context} tokens is longer than the table of ${rows} positions`, {
    span: origin.span,
    notes: [`the longest possible is --context ${rows}`],
  });
}

/** Positions count tokens, so what is turned or attended to must have one row for each. */
function requireTokens(node: Node): void {
  const rows = node.op === 'rope' ? node.inputs.slice(0, 1) : node.inputs.slice(0, 3);
  const fixed = rows.find((input) => input.type.shape[0] !== 'T');
  if (!fixed) return;
  throw new Unsupported(
    `${node.op} over ${formatType(fixed.type)}: its rows are not the tokens of the text`,
    {
      span: node.origin.span,
      notes: ['the first axis must be T'],
    },
  );
}
