import { nearest, UserError } from '../diagnostic.js';
import { isOp, makeNode, rewrite, type Graph, type Node } from '../ir/graph.js';
import type { AttrsOf } from '../ir/ops/index.js';
import { mostBlocks, sparseRun } from '../ir/ops/sparse.js';
import { ruleFor } from '../ir/policy.js';
import { blocks, type SparsityPolicy } from '../ir/sparsity.js';
import { Roles } from './roles.js';

export interface Sparsified {
  readonly graph: Graph;
  /** What the policy asked for and could not be, in words. */
  readonly notes: readonly string[];
}

/** What the columns of a pruned matrix are called. */
const columnsName = (matrix: string): string => `${matrix}.columns`;

/** The tensor of the checkpoint that a weight is made of. */
export function sourceName({ name, pruned }: AttrsOf<'weight'>): string {
  return pruned?.part === 'columns' ? name.slice(0, -columnsName('').length) : name;
}

/**
 * Splits the matrices that the policy chooses into the values that pruning keeps and the columns where they were, and
 * their products accordingly. Every row keeps as many, so that all sizes are known before a value is read.
 * @throws {UserError} when a rule is for no matrix
 */
export function sparsify(graph: Graph, policy: SparsityPolicy): Sparsified {
  if (policy.length === 0) return { graph, notes: [] };
  const roles = new Roles(graph);
  const matrices = graph.nodes.filter(
    (node) =>
      isOp(node, 'weight') &&
      roles.readersOf(node).some((reader) => reader.inputs[1] === node && isOp(reader, 'linear')),
  ) as Node<'weight'>[];
  checkUsed(policy, matrices, roles);
  const dense = new Map<string, string[]>();
  const parts = new Map<Node, readonly [values: Node, columns: Node]>();
  for (const node of matrices) {
    const { name } = node.attrs;
    const rule = ruleFor(policy, name, roles.of(node));
    if (!rule || rule.method === 'none') continue;
    const [r, c] = blocks[rule.block];
    const why = whyDense(node, roles.readersOf(node), [r, c]);
    if (why !== undefined) {
      dense.set(why, [...(dense.get(why) ?? []), name]);
      continue;
    }
    const [rows = 0, columns = 0] = node.attrs.shape;
    const kept = Math.ceil(Number((rule.density * columns).toFixed(6)) / sparseRun) * sparseRun;
    const part = (part: 'values' | 'columns', attrs: Partial<AttrsOf<'weight'>>): Node =>
      makeNode(
        'weight',
        [],
        { ...node.attrs, ...attrs, pruned: { of: [rows, columns], block: [r, c], part } },
        node.origin,
      );
    parts.set(node, [
      part('values', { shape: [rows, kept] }),
      part('columns', { name: columnsName(name), dtype: 'u16', shape: [rows / r, kept / c] }),
    ]);
  }
  const sparse = rewrite(graph, (node) => {
    const [x, matrix, bias] = node.inputs;
    const kept = matrix && isOp(node, 'linear') ? parts.get(matrix) : undefined;
    return x && kept
      ? makeNode('sparse_linear', [x, ...kept, ...(bias ? [bias] : [])], {}, node.origin)
      : node;
  });
  return {
    graph: sparse,
    notes: [...dense].map(([why, [first = '', ...others]]) =>
      others.length === 0
        ? `'${first}' stays dense: ${why}`
        : `'${first}' and ${others.length} more matrices stay dense: ${why}`,
    ),
  };
}

/** Why a matrix cannot be sparse; undefined when it can. */
function whyDense(
  node: Node<'weight'>,
  readers: readonly Node[],
  [r, c]: readonly [number, number],
): string | undefined {
  const [rows = 0, columns = 0] = node.attrs.shape;
  if (
    !readers.every(
      (reader) => isOp(reader, 'linear') && reader.inputs.every((input, i) => input !== node || i === 1),
    )
  )
    return 'not only products read it';
  if (columns % sparseRun !== 0) return `sparse rows are a multiple of ${sparseRun} elements`;
  if (rows % r !== 0) return `blocks of ${r} rows need a multiple of them`;
  if (columns / c > mostBlocks) return `rows have at most ${mostBlocks * c} elements, in blocks of ${c}`;
  return undefined;
}

/** A rule that fits nothing is a mistake. */
function checkUsed(policy: SparsityPolicy, matrices: readonly Node<'weight'>[], roles: Roles): void {
  for (const { match, role } of policy) {
    const fits = matrices.some((node) => ruleFor([{ match, role }], node.attrs.name, roles.of(node)));
    if (fits) continue;
    const names = matrices.map(({ attrs }) => attrs.name);
    const near = match === undefined ? undefined : nearest(match, names);
    const wanted = [
      ...(match === undefined ? [] : [`is called '${match}'`]),
      ...(role === undefined ? [] : [`has the role ${role}`]),
    ].join(' and ');
    throw new UserError(`cannot sparsify: no matrix of a product ${wanted}`, {
      notes: [
        near === undefined ? `one is called '${names[0] ?? ''}'` : `did you mean '${near}'?`,
        ...(match === undefined || match.includes('*')
          ? []
          : [`'*${match}*' is any name with ${match} in it`]),
      ],
    });
  }
}
