import { isOp, usersOf, type Graph, type Node } from '../ir/graph.js';
import { ops, type OpName } from '../ir/ops/index.js';
import { sameShape } from '../ir/type.js';
import { layoutOf } from './access.js';
import type { EntryPass, Kernel, KernelKind } from './entry.js';

/** The template that computes each op by itself; leaves and views are not computed. */
const kindOf: { readonly [N in OpName]: KernelKind | undefined } = {
  input: undefined,
  weight: undefined,
  state: undefined,
  rope_table: undefined,
  embed: 'embed',
  linear: 'linear',
  rms_norm: 'rms_norm',
  rope: 'rope',
  cache_append: 'elementwise',
  attention: 'attention',
  silu: 'elementwise',
  gelu: 'elementwise',
  mul: 'elementwise',
  add: 'elementwise',
  scale: 'elementwise',
  split: undefined,
  reshape: undefined,
  softmax: 'softmax',
  last: undefined,
  argmax: 'argmax',
};

interface Template {
  /** Whether elementwise nodes and a cache append can follow on each element before it is stored. */
  readonly epilogue: boolean;
  /** Whether it can compute several values of one shape from one input, for an epilogue that reads them all. */
  readonly parts: boolean;
}

/** What each template accepts. */
const templates: { readonly [K in KernelKind]: Template } = {
  embed: { epilogue: true, parts: false },
  linear: { epilogue: true, parts: true },
  rms_norm: { epilogue: true, parts: false },
  rope: { epilogue: true, parts: false },
  attention: { epilogue: true, parts: false },
  softmax: { epilogue: true, parts: false },
  argmax: { epilogue: false, parts: false },
  elementwise: { epilogue: true, parts: false },
};

/**
 * Metal has 31 buffer indices. With n inputs a region takes at most x, a matrix and a bias for each of n parts, the
 * result and the step: 2n + 3. A longer chain only makes a kernel nobody would want to read.
 */
const mostRegionInputs = 12;
const mostRegionNodes = 32;

/** Elementwise nodes of one shape that feed only each other, and the one whose value leaves. */
interface Region {
  readonly root: Node;
  readonly nodes: readonly Node[];
}

/** What a region is computed together with. */
interface Anchors {
  readonly anchors: readonly Node[];
  /** Views between an anchor and the region. */
  readonly through: readonly Node[];
}

/** Draws the borders of kernels: elementwise nodes join the kernel that makes their input, appends follow their value. */
export const fuseLayers: EntryPass = {
  name: 'fuse-layers',
  doc: 'draw kernel borders: elementwise chains, gated MLPs and cache appends join their producer',
  run: (entry) => ({ ...entry, kernels: new Fusion(entry.graph).kernels() }),
};

class Fusion {
  private readonly users: ReadonlyMap<Node, readonly Node[]>;
  private readonly results: ReadonlySet<Node>;
  private readonly layout: ReturnType<typeof layoutOf>;
  private readonly position: ReadonlyMap<Node, number>;

  constructor(private readonly graph: Graph) {
    this.users = usersOf(graph);
    this.results = new Set([...graph.outputs.values(), ...graph.updates.values()]);
    this.layout = layoutOf(graph);
    this.position = new Map(graph.nodes.map((node, i) => [node, i]));
  }

  kernels(): Kernel[] {
    const kernels = new Map<Node, Kernel>();
    const add = (kernel: Kernel): void => void kernels.set(kernel.result, kernel);
    const taken = new Set<Node>();
    for (const { root, nodes } of this.regions()) {
      const joined = this.anchorsOf(root, nodes);
      for (const anchor of joined?.anchors ?? []) taken.add(anchor);
      add({
        kind: (joined?.anchors[0] && kindOf[joined.anchors[0].op]) ?? 'elementwise',
        anchors: joined?.through.length ? joined.through : (joined?.anchors ?? []),
        epilogue: nodes,
        append: undefined,
        nodes: new Set([...(joined?.anchors ?? []), ...(joined?.through ?? []), ...nodes]),
        result: root,
      });
    }
    for (const node of this.graph.nodes) {
      const copied = this.layout.copied.has(node);
      const kind = copied ? 'elementwise' : kindOf[node.op];
      const computed =
        copied || (kind !== undefined && ops[node.op].class === 'kernel' && node.op !== 'cache_append');
      if (!kind || !computed || taken.has(node)) continue;
      add({ kind, anchors: [node], epilogue: [], append: undefined, nodes: new Set([node]), result: node });
    }
    for (const node of this.graph.nodes) {
      if (!isOp(node, 'cache_append')) continue;
      const through = this.wayToKernel(node, kernels);
      const made = through && kernels.get(through.value);
      if (made) kernels.delete(made.result);
      add({
        ...(made ?? { kind: 'elementwise', anchors: [], epilogue: [] }),
        append: node,
        nodes: new Set([...(made?.nodes ?? []), ...(made ? through.views : []), node]),
        result: node,
      });
    }
    return [...kernels.values()].sort((a, b) => this.index(a.result) - this.index(b.result));
  }

  private index(node: Node): number {
    return this.position.get(node) ?? -1;
  }

  private usersOf(node: Node): ReadonlySet<Node> {
    return new Set(this.users.get(node));
  }

  /** Whether `node` is read by `readers` and nobody else. */
  private onlyReadBy(node: Node, readers: ReadonlySet<Node>): boolean {
    return !this.results.has(node) && [...this.usersOf(node)].every((user) => readers.has(user));
  }

  /** Partitions the elementwise nodes into regions, each as large as one kernel's epilogue can hold. */
  private regions(): Region[] {
    const elementwise = (node: Node): boolean => ops[node.op].class === 'elementwise';
    const inRegion = new Set<Node>();
    const regions: Region[] = [];
    for (const root of [...this.graph.nodes].reverse()) {
      if (!elementwise(root) || inRegion.has(root)) continue;
      const nodes = new Set([root]);
      for (const node of nodes) {
        for (const input of node.inputs) {
          const fits = elementwise(input) && sameShape(input.type.shape, root.type.shape);
          if (!fits || !this.onlyReadBy(input, nodes)) continue;
          nodes.add(input);
          if (inputsOf(nodes).size > mostRegionInputs || nodes.size > mostRegionNodes) nodes.delete(input);
        }
      }
      for (const node of nodes) inRegion.add(node);
      regions.push({ root, nodes: [...nodes].sort((a, b) => this.index(a) - this.index(b)) });
    }
    return regions;
  }

  /** The producer a region joins: the parts of a gated MLP if it reads them all, else its latest single-use input. */
  private anchorsOf(root: Node, nodes: readonly Node[]): Anchors | undefined {
    const region = new Set(nodes);
    const own = [...inputsOf(region)]
      .filter((node) => sameShape(node.type.shape, root.type.shape) && this.onlyReadBy(node, region))
      .sort((a, b) => this.index(b) - this.index(a));
    const halves = own.filter((node) => isOp(node, 'split') && !this.layout.copied.has(node));
    const [whole] = halves.flatMap((node) => node.inputs);
    if (whole && isOp(whole, 'linear') && this.onlyReadBy(whole, new Set(halves))) {
      const through = halves.filter((node) => node.inputs[0] === whole).reverse();
      return { anchors: [whole], through };
    }
    const latest = own.find((node) => templateOf(node)?.epilogue);
    if (!latest) return undefined;
    const twins = own.filter((node) => node === latest || sameMatrixShape(node, latest)).reverse();
    return { anchors: templateOf(latest)?.parts ? twins : [latest], through: [] };
  }

  /** Follows an append's value back through reshapes to a kernel that can store it itself. */
  private wayToKernel(
    append: Node,
    kernels: ReadonlyMap<Node, Kernel>,
  ): { readonly value: Node; readonly views: readonly Node[] } | undefined {
    const views: Node[] = [];
    let user = append;
    let value = append.inputs[1];
    while (value && this.onlyReadBy(value, new Set([user]))) {
      const kernel = kernels.get(value);
      if (kernel) return templates[kernel.kind].epilogue && !kernel.append ? { value, views } : undefined;
      if (!isOp(value, 'reshape')) return undefined;
      views.push(value);
      user = value;
      value = value.inputs[0];
    }
    return undefined;
  }
}

/** What a set of nodes reads from outside of it. */
function inputsOf(nodes: ReadonlySet<Node>): ReadonlySet<Node> {
  return new Set([...nodes].flatMap((node) => node.inputs).filter((input) => !nodes.has(input)));
}

/** What the template that computes an op by itself accepts; undefined for leaves, views and elementwise ops. */
function templateOf(node: Node): Template | undefined {
  const kind = ops[node.op].class === 'kernel' ? kindOf[node.op] : undefined;
  return kind && templates[kind];
}

/** Whether two products read the same vectors and have matrices of one type, so that one pass over the vector serves both. */
function sameMatrixShape(a: Node, b: Node): boolean {
  if (!isOp(a, 'linear') || !isOp(b, 'linear')) return false;
  const [weightA, weightB] = [a.inputs[1], b.inputs[1]];
  return (
    a.inputs[0] === b.inputs[0] &&
    a.inputs.length === b.inputs.length &&
    weightA?.type.dtype === weightB?.type.dtype &&
    sameShape(weightA?.type.shape ?? [], weightB?.type.shape ?? [])
  );
}
