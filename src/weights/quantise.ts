import { UserError } from '../diagnostic.js';
import { isOp, rewrite, makeNode, type Graph, type Node } from '../ir/graph.js';
import { isPackedName, packedFormats, rowMultiple, type PackedName } from '../ir/packed.js';
import { defaultMethod, ruleFor, type Method, type Policy } from '../ir/policy.js';
import type { DType } from '../ir/type.js';
import { blockFormats } from './blocks.js';
import { Roles } from './roles.js';
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
  const roles = new Roles(graph);
  const methods = new Map<string, Method>();
  const kept = new Map<string, string[]>();
  const choose = (node: Node<'weight'>): DType | PackedName => {
    const { name, shape, transposed, pruned } = node.attrs;
    const { dtype } = node.type;
    if (!roles.readersOf(node).every((reader) => readsAsMatrix(reader, node))) return dtype;
    const tensor = checkpoint?.tensors.get(name);
    const stored = tensor?.dtype ?? '';
    // A matrix that lies the other way round has its groups along the wrong axis, and pruning takes groups apart.
    const turned = (transposed ?? false) !== (tensor?.columnsFirst ?? false);
    const twin = turned || pruned ? undefined : twins.get(stored);
    const rule = ruleFor(policy, name, roles.of(node));
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
  if (!isOp(reader, 'linear', 'sparse_linear', 'embed')) return false;
  return reader.inputs.every((input, i) => input !== weight || i === 1);
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
