import { UserError } from '../diagnostic.js';
import { isOp, rewrite, makeNode, usersOf, type Graph, type Node } from '../ir/graph.js';
import { isPackedName, packedFormats, rowMultiple, type PackedName } from '../ir/packed.js';
import { defaultMethod, ruleFor, type Method, type Policy, type Role } from '../ir/policy.js';
import type { DType } from '../ir/type.js';
import { blockFormats } from './blocks.js';
import type { Checkpoint } from './stored.js';

/** The packed format that holds the very integers and scales of GGML's. */
const twins: ReadonlyMap<string, PackedName> = new Map([
  ['Q4_0', 'q4g32'],
  ['Q4_1', 'q4g32b'],
  ['Q5_0', 'q5g32'],
  ['Q5_1', 'q5g32b'],
  ['Q8_0', 'q8g32'],
  ['Q4_K', 'q4k'],
  ['Q5_K', 'q5k'],
  ['Q6_K', 'q6k'],
]);

export interface Quantised {
  readonly graph: Graph;
  /** How the integers of a weight are chosen, for those that are quantised here. */
  readonly methods: ReadonlyMap<string, Method>;
  /** What the policy asked for and could not be, in words. */
  readonly notes: readonly string[];
}

/**
 * Gives every matrix the format that it is stored in. What the checkpoint has quantised keeps its integers, unless the
 * policy wants floats; what other ops than `linear` and `embed` read keeps its elements.
 * @throws {UserError} when the policy would quantise a second time
 */
export function quantise(
  graph: Graph,
  policy: Policy,
  checkpoint: Pick<Checkpoint, 'tensors'> | undefined,
): Quantised {
  const users = usersOf(graph);
  const attended = productsAttended(graph);
  const heads = productsBehind(graph.outputs.get('logits'));
  const methods = new Map<string, Method>();
  const kept = new Map<string, string[]>();
  const rolesOf = (weight: Node, readers: readonly Node[]): ReadonlySet<Role> => {
    const roles = new Set<Role>();
    for (const reader of readers) {
      if (isOp(reader, 'embed') && reader.inputs[1] === weight) roles.add('embedding');
      if (heads.has(reader)) roles.add('lm_head');
      if (attended.has(reader)) roles.add('qkv');
    }
    return roles;
  };
  const choose = (node: Node<'weight'>): DType | PackedName => {
    const { name, shape, transposed } = node.attrs;
    const { dtype } = node.type;
    const readers = users.get(node) ?? [];
    if (!readers.every((reader) => readsAsMatrix(reader, node))) return dtype;
    const tensor = checkpoint?.tensors.get(name);
    const stored = tensor?.dtype ?? '';
    // A matrix that lies the other way round has its groups along the wrong axis.
    const turned = (transposed ?? false) !== (tensor?.columnsFirst ?? false);
    const twin = turned ? undefined : twins.get(stored);
    const rule = ruleFor(policy, name, rolesOf(node, readers));
    const wanted = rule?.format ?? 'stored';
    if (wanted === 'stored' || wanted === twin) return twin ?? dtype;
    if (!isPackedName(wanted)) return wanted;
    if (blockFormats.has(stored)) throw twice(node, stored, wanted);
    const multiple = rowMultiple(packedFormats[wanted]);
    if ((shape[1] ?? 0) % multiple !== 0) {
      const why = `${dtype}: ${wanted} needs rows of a multiple of ${multiple} elements`;
      kept.set(why, [...(kept.get(why) ?? []), name]);
      return dtype;
    }
    methods.set(name, rule?.method ?? defaultMethod(wanted));
    return wanted;
  };
  const quantised = rewrite(graph, (node) => {
    if (!isOp(node, 'weight')) return node;
    const dtype = choose(node);
    return dtype === node.type.dtype ? node : makeNode('weight', [], { ...node.attrs, dtype }, node.origin);
  });
  return {
    graph: quantised,
    methods,
    notes: [...kept].map(([why, [first = '', ...others]]) =>
      others.length === 0
        ? `'${first}' stays ${why}`
        : `'${first}' and ${others.length} more matrices stay ${why}`,
    ),
  };
}

function readsAsMatrix(reader: Node, weight: Node): boolean {
  if (!isOp(reader, 'linear', 'embed')) return false;
  return reader.inputs.every((input, i) => input !== weight || i === 1);
}

/** The product that logits are, whatever is done to each of them afterwards. */
function productsBehind(logits: Node | undefined): ReadonlySet<Node> {
  const found = new Set<Node>();
  for (let node = logits; node && !found.has(node);) {
    if (isOp(node, 'linear')) return new Set([node]);
    found.add(node);
    node = isOp(node, 'scale', 'tanh', 'reshape') ? node.inputs[0] : undefined;
  }
  return new Set();
}

/** The products that queries, keys and values are, after a bias, a norm or a rotation. */
function productsAttended(graph: Graph): ReadonlySet<Node> {
  const found = new Set<Node>();
  for (const attention of graph.nodes) {
    if (!isOp(attention, 'attention')) continue;
    const seen = new Set<Node>(attention.inputs.slice(0, 3));
    for (const node of seen) {
      if (isOp(node, 'linear')) found.add(node);
      else if (isOp(node, 'reshape', 'split', 'rope', 'rms_norm', 'layer_norm', 'scale', 'add', 'mul'))
        for (const input of node.inputs) seen.add(input);
    }
  }
  return found;
}

function twice({ attrs: { name }, origin }: Node<'weight'>, stored: string, wanted: PackedName): UserError {
  return new UserError(
    `weight '${name}' is stored as ${stored}; what is quantised is not quantised again, to ${wanted}`,
    {
      span: origin.span,
      within: origin.scope || undefined,
      notes: [
        `a rule before can leave it as it is: { "match": ${JSON.stringify(name)}, "format": "stored" }`,
        'without --quantize every tensor keeps its integers',
      ],
    },
  );
}
