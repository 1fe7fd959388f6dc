import { asProduct, isOp, usersOf, type Graph, type Node } from '../ir/graph.js';
import { ops } from '../ir/ops/index.js';
import { isPackedName, packedFormats, planesOf } from '../ir/packed.js';
import { valueNames } from '../ir/text.js';
import { bytesPerElement, sameShape, type Dim } from '../ir/type.js';
import { kernelSources, layoutOf, type Layout } from './access.js';
import { savedByRepeating } from './cost.js';
import type { EntryPass, Kernel, KernelKind, Output } from './entry.js';
import { levelsOf } from './levels.js';
import { matmulShape } from './matmul.js';
import { productShape } from './product.js';
import { splitShape } from './split.js';
import type { Target } from './target.js';
import { kindOf, templateOf, templates } from './templates.js';

/**
 * Metal has 31 buffer indices. A region with n inputs takes at most n, the result and the step, and as the epilogue of
 * products x, a bias and the matrix of each, one for every plane of it. A longer chain only makes a kernel nobody would
 * want to read.
 */
const mostBuffers = 31;
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

/**
 * Draws the borders of kernels, in steps that each leave a correct partition: elementwise nodes join the kernel that
 * makes their input; appends follow their value; rotations and appends join the product whose part they read; products
 * of one operand become one kernel; a product takes in the norm that only it reads.
 * What is legal is in templates.ts; where work would be repeated, cost.ts says whether it pays.
 */
export const fuseLayers: EntryPass = {
  name: 'fuse-layers',
  doc: 'draw kernel borders: what is inside one is computed in one dispatch',
  run: (entry, { target, fuse = true }) => ({
    ...entry,
    kernels: new Fusion(entry.graph, target, fuse).kernels(),
  }),
};

/** A kernel of one result. Its border is explained once all are drawn. */
function kernelOf(kind: KernelKind, nodes: Iterable<Node>, output: Omit<Output, 'border'>): Kernel {
  return { kind, prologue: undefined, outputs: [{ ...output, border: '' }], nodes: new Set(nodes) };
}

class Fusion {
  private readonly users: ReadonlyMap<Node, readonly Node[]>;
  private readonly results: ReadonlySet<Node>;
  private readonly layout: Layout;
  private readonly position: ReadonlyMap<Node, number>;
  /** Kernels by each of their results. */
  private readonly made = new Map<Node, Kernel>();

  constructor(
    private readonly graph: Graph,
    private readonly target: Target,
    /** Without, no step joins anything. */
    private readonly fuse: boolean,
  ) {
    this.users = usersOf(graph);
    this.results = new Set([...graph.outputs.values(), ...graph.updates.values()]);
    this.layout = layoutOf({ graph, kernels: [] });
    this.position = new Map(graph.nodes.map((node, i) => [node, i]));
  }

  kernels(): Kernel[] {
    this.joinElements();
    this.joinAppends();
    if (this.fuse) {
      this.joinParts();
      this.joinProducts();
      this.joinPrologues();
    }
    const levels = this.levels();
    const level = (kernel: Kernel): number => levels.get(kernel) ?? 0;
    const first = (kernel: Kernel): number => this.index(kernel.outputs[0].result);
    return this.explained([...levels.keys()].sort((a, b) => level(a) - level(b) || first(a) - first(b)));
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

  /** The only node that reads `node`; undefined when there are others or it leaves the graph. */
  private onlyReader(node: Node): Node | undefined {
    const [reader, ...others] = this.usersOf(node);
    return others.length > 0 || this.results.has(node) ? undefined : reader;
  }

  private replace(old: readonly Kernel[], kernel: Kernel): void {
    for (const { outputs } of old) for (const { result } of outputs) this.made.delete(result);
    for (const { result } of kernel.outputs) this.made.set(result, kernel);
  }

  /** Regions of elementwise nodes with what computes their input; every other computed node alone. */
  private joinElements(): void {
    const taken = new Set<Node>();
    for (const { root, nodes } of this.regions()) {
      const joined = this.fuse ? this.anchorsOf(root, nodes) : undefined;
      for (const anchor of joined?.anchors ?? []) taken.add(anchor);
      const kind = (joined?.anchors[0] && kindOf[joined.anchors[0].op]) ?? 'elementwise';
      const anchors = joined?.through.length ? joined.through : (joined?.anchors ?? []);
      const inside = [...(joined?.anchors ?? []), ...(joined?.through ?? []), ...nodes];
      this.made.set(
        root,
        kernelOf(kind, inside, { anchors, epilogue: nodes, append: undefined, result: root }),
      );
    }
    for (const node of this.graph.nodes) {
      const copied = this.layout.copied.has(node);
      const kind = copied ? 'elementwise' : kindOf[node.op];
      const computed =
        copied || (kind !== undefined && ops[node.op].class === 'kernel' && node.op !== 'cache_append');
      if (!kind || !computed || taken.has(node)) continue;
      const output = { anchors: [node], epilogue: [], append: undefined, result: node };
      this.made.set(node, kernelOf(kind, [node], output));
    }
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
          const fits = this.fuse && elementwise(input) && sameShape(input.type.shape, root.type.shape);
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
    if (whole && asProduct(whole) && this.onlyReadBy(whole, new Set(halves))) {
      const through = halves.filter((node) => node.inputs[0] === whole).reverse();
      return { anchors: [whole], through };
    }
    const latest = own.find((node) => templateOf(node)?.epilogue);
    if (!latest) return undefined;
    if (!templateOf(latest)?.parts) return { anchors: [latest], through: [] };
    const twins = own.filter((node) => node === latest || sameMatrixType(node, latest)).reverse();
    const others = inputsOf(region).size + 2;
    const buffers = (parts: readonly Node[]): number =>
      others - parts.length + planesOfAll(inputsOf(new Set(parts)));
    // The latest is the last.
    while (twins.length > 1 && buffers(twins) > mostBuffers) twins.shift();
    return { anchors: twins, through: [] };
  }

  /** A kernel whose result is only stored in a cache stores it there itself. */
  private joinAppends(): void {
    for (const node of this.graph.nodes) {
      if (!isOp(node, 'cache_append')) continue;
      const through = this.fuse ? this.wayToKernel(node) : undefined;
      const maker = through && this.made.get(through.value);
      if (!through || !maker) {
        const output = { anchors: [], epilogue: [], append: node, result: node };
        this.made.set(node, kernelOf('elementwise', [node], output));
        continue;
      }
      const output = { ...maker.outputs[0], append: node, result: node };
      this.replace([maker], kernelOf(maker.kind, [...maker.nodes, ...through.views, node], output));
    }
  }

  /** Follows an append's value back through reshapes to a kernel that can store it itself. */
  private wayToKernel(append: Node): { readonly value: Node; readonly views: readonly Node[] } | undefined {
    const views: Node[] = [];
    let user = append;
    let value = append.inputs[1];
    while (value && this.onlyReadBy(value, new Set([user]))) {
      const kernel = this.made.get(value);
      if (kernel) {
        const fits = templates[kernel.kind].epilogue && !kernel.outputs[0].append;
        return fits ? { value, views } : undefined;
      }
      if (!isOp(value, 'reshape')) return undefined;
      views.push(value);
      user = value;
      value = value.inputs[0];
    }
    return undefined;
  }

  private levels(): ReadonlyMap<Kernel, number> {
    const kernels = [...new Set(this.made.values())];
    return levelsOf(kernels, layoutOf({ graph: this.graph, kernels }));
  }

  /** The level of the kernel that each node is in. */
  private levelOfNodes(): ReadonlyMap<Node, number> {
    return new Map(
      [...this.levels()].flatMap(([{ nodes }, level]) => [...nodes].map((node) => [node, level])),
    );
  }

  /**
   * A product whose parts (or whole) are only turned by `rope` or stored in a cache: each part becomes a result of the
   * product's kernel.
   */
  private joinParts(): void {
    const before = this.levelOfNodes();
    const kernelOfNode = new Map(
      [...this.made.values()].flatMap((kernel) => [...kernel.nodes].map((node) => [node, kernel])),
    );
    for (const kernel of [...this.made.values()]) {
      const product = plainProduct(kernel);
      if (!product || this.results.has(product)) continue;
      const users = [...this.usersOf(product)];
      const parts = users.every((user) => isOp(user, 'split') && !this.layout.copied.has(user))
        ? users
        : [product];
      const joined = parts.map((part) =>
        this.readerOfPart(
          part,
          kernelOfNode,
          (source) => (before.get(source) ?? -1) < (before.get(product) ?? -1),
        ),
      );
      const taken = joined.flatMap((reader) => (reader ? [reader.kernel] : []));
      if (taken.length === 0) continue;
      const outputs = parts.map((part, i): Output => {
        const own = joined[i]?.kernel.outputs[0];
        const first = own?.anchors.filter((node) => isOp(node, 'rope')) ?? [];
        const { append, result, epilogue = [] } = own ?? { append: undefined, result: part };
        return { anchors: [part], epilogue: [...first, ...epilogue], append, result, border: '' };
      });
      const [firstOutput, ...rest] = outputs;
      if (!firstOutput) continue;
      const inside = [
        product,
        ...parts,
        ...joined.flatMap((reader) => reader?.views ?? []),
        ...taken.flatMap(({ nodes }) => [...nodes]),
      ];
      const both: Kernel = {
        kind: kernel.kind,
        prologue: undefined,
        outputs: [firstOutput, ...rest],
        nodes: new Set(inside),
      };
      if (buffersOf(both) <= mostBuffers) this.replace([kernel, ...taken], both);
    }
  }

  /** The kernel that alone reads a part of a product and can be computed by the product's. */
  private readerOfPart(
    part: Node,
    kernelOfNode: ReadonlyMap<Node, Kernel>,
    isEarlier: (source: Node) => boolean,
  ): { readonly kernel: Kernel; readonly views: readonly Node[] } | undefined {
    const views: Node[] = [];
    let value = part;
    let reader = this.onlyReader(value);
    while (reader && isOp(reader, 'reshape') && !this.layout.copied.has(reader)) {
      views.push(reader);
      value = reader;
      reader = this.onlyReader(value);
    }
    const kernel = reader && kernelOfNode.get(reader);
    if (!reader || !kernel || kernel.outputs.length > 1) return undefined;
    const [{ anchors, epilogue, append }] = kernel.outputs;
    const turned =
      anchors[0] === reader && isOp(reader, 'rope') && value === reader.inputs[0] && pairsUp(reader);
    const stored = append === reader && value === reader.inputs[1] && anchors.length + epilogue.length === 0;
    // Whatever else it reads must not depend on the product, nor on another one that takes in its readers.
    const own = new Set<Node>([this.layout.of(value).source]);
    const others = [...kernelSources(kernel, this.layout)].filter((source) => !own.has(source));
    const independent = others.every(isEarlier);
    return (turned || stored) && independent ? { kernel, views } : undefined;
  }

  /** Products of one operand, none of which depends on another, become one kernel with several results. */
  private joinProducts(): void {
    const levels = this.levels();
    const together = new Map<string, Kernel[]>();
    for (const [kernel, level] of levels) {
      const product = productOf(kernel);
      const [x, matrix] = product?.inputs ?? [];
      if (!product || !x || !matrix) continue;
      const kept = templates[kernel.kind].mixed ? [] : [matrix.type.dtype];
      // What sparse matrices want of a kernel is not what others do.
      const key = [level, this.index(x), product.op, ...kept].join();
      together.set(key, [...(together.get(key) ?? []), kernel]);
    }
    const product = (kernel: Kernel): number => this.index(productOf(kernel) ?? kernel.outputs[0].result);
    for (const kernels of together.values()) {
      const [start, ...others] = kernels.sort((a, b) => product(a) - product(b));
      let first = start;
      for (const next of others) {
        const both = first && this.joined(first, next);
        if (first && both) this.replace([first, next], both);
        first = both ?? next;
      }
    }
  }

  private joined(a: Kernel, b: Kernel): Kernel | undefined {
    const both: Kernel = {
      ...a,
      outputs: [...a.outputs, ...b.outputs],
      nodes: new Set([...a.nodes, ...b.nodes]),
    };
    return buffersOf(both) <= mostBuffers ? both : undefined;
  }

  private joinPrologues(): void {
    for (const kernel of new Set(this.made.values())) {
      const { value: x, views } = this.behindViews(kernel);
      const maker = x && this.made.get(x);
      if (!x || !maker || this.whyNoPrologue(kernel, maker, x, views) !== undefined) continue;
      const nodes = new Set([...maker.nodes, ...views, ...kernel.nodes]);
      this.replace([maker, kernel], { ...kernel, prologue: x, nodes });
    }
  }

  /** The value whose elements, under another shape, are the operand of a product. */
  private behindViews(kernel: Kernel): { readonly value: Node | undefined; readonly views: readonly Node[] } {
    const views: Node[] = [];
    let value = productOf(kernel)?.inputs[0];
    while (value && isOp(value, 'reshape') && !this.layout.copied.has(value)) {
      views.push(value);
      value = value.inputs[0];
    }
    return { value, views };
  }

  /** Why `kernel` does not compute x, its operand behind `views`, by itself; undefined when it does. */
  private whyNoPrologue(kernel: Kernel, maker: Kernel, x: Node, views: readonly Node[]): string | undefined {
    const { prologues, needs } = templates[kernel.kind];
    const [{ epilogue, append }] = maker.outputs;
    if (!prologues.includes(x.op) || epilogue.length > 0 || append) return needs;
    const products = [...kernel.nodes].filter((node) => asProduct(node));
    const readers = new Set([...products, ...views]);
    if (![x, ...views].every((value) => this.onlyReadBy(value, readers)))
      return 'not only the products of one kernel read';
    // A norm of the rows of heads is not one of the product's operand.
    if (isOp(x, 'rms_norm') && x.type.shape.length !== 2) return needs;
    if (preparedBytes(x) > this.target.threadgroupBytes - scratchBytes)
      return 'threadgroup memory is too small for a row of';
    const prepared = { ...kernel, prologue: x, nodes: new Set([...kernel.nodes, ...views, ...maker.nodes]) };
    if (buffersOf(prepared) > mostBuffers) return 'there are not enough buffer indices to make';
    const { dims } = this.graph;
    if (matmulShape(kernel, dims, this.target)) return 'many tiles of a chunk read';
    const split = splitShape(prepared, dims, this.target);
    if (!split && splitShape(kernel, dims, this.target))
      return 'simdgroups that keep their part of an operand in registers cannot make';
    const { threadgroups } = split ?? productShape(prepared, this.target);
    if (savedByRepeating(x, this.graph, threadgroups, this.target.cost) <= 0)
      return `each of ${threadgroups} threadgroups making its own costs more than a dispatch for`;
    return undefined;
  }

  /** Says of every result why it goes to memory. */
  private explained(kernels: readonly Kernel[]): Kernel[] {
    const layout = layoutOf({ graph: this.graph, kernels });
    const names = valueNames(this.graph.nodes);
    const readers = new Map<Node, Kernel[]>();
    for (const kernel of kernels) {
      for (const source of kernelSources(kernel, layout))
        readers.set(source, [...(readers.get(source) ?? []), kernel]);
    }
    const explain = (maker: Kernel, output: Output): Output => {
      const { append, result } = output;
      const name = names.get(result) ?? '';
      const [reader, ...others] = readers.get(result) ?? [];
      const reason = (): string => {
        if (append) return 'the cache outlives the step';
        if (this.results.has(result) || !reader) return `the host reads ${name}`;
        if (!this.fuse) return 'nothing is fused';
        if (others.length > 0) return `${others.length + 1} kernels read ${name}`;
        const { value, views } = this.behindViews(reader);
        if (value === result) return `${this.whyNoPrologue(reader, maker, result, views) ?? ''} ${name}`;
        if (isCopy(reader)) return `a copy moves ${name}`;
        const read = new Set(operandsOf(reader).map((node) => layout.of(node).source));
        const apart = reader.kind !== 'elementwise' && !read.has(result);
        const [own, its] = [maker, reader].map(productOf);
        const [matrix, itsMatrix] = [own?.inputs[1]?.type, its?.inputs[1]?.type];
        if (
          apart &&
          matrix &&
          itsMatrix &&
          own?.inputs[0] === its?.inputs[0] &&
          matrix.dtype !== itsMatrix.dtype
        )
          return `its reader has a matrix of ${itsMatrix.dtype}, not ${matrix.dtype} as ${name}`;
        return `${apart ? 'its reader is computed with another operand than' : templates[reader.kind].needs} ${name}`;
      };
      return { ...output, border: reason() };
    };
    return kernels.map((kernel) => {
      const [first, ...rest] = kernel.outputs;
      return {
        ...kernel,
        outputs: [explain(kernel, first), ...rest.map((output) => explain(kernel, output))],
      };
    });
  }
}

/** Threadgroup memory for sums across simdgroups: one float for each of at most 32. */
const scratchBytes = 32 * 4;

/** Threadgroup memory that a prologue takes: a row of its value, and what each part adds to a head. */
function preparedBytes(x: Node): number {
  const floats = (shape: readonly Dim[]): number => shape.reduce<number>((n, dim) => n * Number(dim), 1);
  const parts = isOp(x, 'attention_combine') ? (x.inputs[0]?.type.shape.slice(1, 3) ?? []) : undefined;
  return bytesPerElement.f32 * (floats(x.type.shape.slice(1)) + (parts ? floats(parts) : 0));
}

/** What a set of nodes reads from outside of it. */
function inputsOf(nodes: ReadonlySet<Node>): ReadonlySet<Node> {
  return new Set([...nodes].flatMap((node) => node.inputs).filter((input) => !nodes.has(input)));
}

/** Most buffer arguments of a kernel: what it reads, were every view stored by itself, its results and the step. */
function buffersOf({ nodes, outputs }: Kernel): number {
  return planesOfAll(inputsOf(nodes)) + outputs.length + 1;
}

/** Buffers that hold some values: a packed matrix has one for each of its planes. */
function planesOfAll(values: ReadonlySet<Node>): number {
  const planes = ({ type: { dtype } }: Node): number =>
    isPackedName(dtype) ? planesOf(packedFormats[dtype]).length : 1;
  return [...values].reduce((sum, value) => sum + planes(value), 0);
}

/** What a kernel's template reads by itself, its epilogue aside. */
function operandsOf({ prologue, outputs }: Kernel): readonly Node[] {
  return (prologue ? [prologue] : outputs.flatMap(({ anchors }) => anchors)).flatMap(({ inputs }) => inputs);
}

/** Whether a kernel only moves elements, maybe into a cache. */
function isCopy({ kind, outputs }: Kernel): boolean {
  return kind === 'elementwise' && outputs[0].epilogue.length === 0;
}

/** The (first) product that a kernel computes. */
function productOf({ kind, outputs }: Kernel): Node | undefined {
  const [anchor] = outputs[0].anchors;
  if (kind !== 'linear' || !anchor) return undefined;
  return isOp(anchor, 'split') ? anchor.inputs[0] : anchor;
}

/** The product of a kernel that computes nothing else. */
function plainProduct({ kind, outputs }: Kernel): Node | undefined {
  const [{ anchors, epilogue, append }, ...others] = outputs;
  const plain = kind === 'linear' && others.length === 0 && epilogue.length === 0 && !append;
  return plain ? anchors[0] : undefined;
}

/** Whether a rotation pairs all elements of a head, or leaves an even number of them as they are. */
function pairsUp(rope: Node): boolean {
  return Number(rope.type.shape[2]) % 2 === 0;
}

/** Whether two products read the same vectors and have matrices of one type, so that one pass over the vector serves both. */
function sameMatrixType(a: Node, b: Node): boolean {
  if (!asProduct(a) || a.op !== b.op || a.inputs[0] !== b.inputs[0]) return false;
  const matrices = ({ inputs }: Node): readonly Node[] => inputs.slice(1, isOp(a, 'sparse_linear') ? 3 : 2);
  const others = matrices(b);
  return (
    a.inputs.length === b.inputs.length &&
    matrices(a).every(({ type }, i) => {
      const other = others[i]?.type;
      return type.dtype === other?.dtype && sameShape(type.shape, other.shape);
    })
  );
}
