import type { Graph, Node } from '../ir/graph.js';
import type { Target } from './target.js';

/** Families of kernels, one template each. `elementwise` also copies. */
export const kernelKinds = [
  'embed',
  'linear',
  'rms_norm',
  'layer_norm',
  'rope',
  'attention',
  'attention_parts',
  'attention_combine',
  'softmax',
  'argmax',
  'sample_parts',
  'sample',
  'elementwise',
] as const;
export type KernelKind = (typeof kernelKinds)[number];

/** One value that leaves a kernel. */
export interface Output {
  /** What the template computes for it: one value, or several of equal shape that the epilogue reads together (gate and up of a gated MLP). */
  readonly anchors: readonly Node[];
  /** Nodes computed on each element before it is stored, each after its inputs; the first may be `rope`, on pairs of elements. */
  readonly epilogue: readonly Node[];
  /** The cache that the value is stored into, when it has no buffer of its own. */
  readonly append: Extract<Node, { readonly op: 'cache_append' }> | undefined;
  /** The value. */
  readonly result: Node;
  /** Why it goes to memory and not into a kernel that reads it, in one phrase. */
  readonly border: string;
}

/** A border drawn around nodes of the graph: what is inside is computed in one dispatch. */
export interface Kernel {
  readonly kind: KernelKind;
  /** Computed on the template's operand x by every threadgroup for itself. */
  readonly prologue: Node | undefined;
  /** More than one only where the template says so. */
  readonly outputs: readonly [Output, ...Output[]];
  /** Every node inside the border. */
  readonly nodes: ReadonlySet<Node>;
}

export function resultsOf({ outputs }: Kernel): readonly Node[] {
  return outputs.map(({ result }) => result);
}

/** Whether a kernel changes the step's record: it draws the next id and moves the position on. */
export const endsStep = ({ kind }: Kernel): boolean => kind === 'sample';

/** A buffer of the pool and the barrier epochs during which it holds a value, both ends included. */
export interface PoolBuffer {
  readonly value: Node;
  readonly offset: number;
  readonly bytes: number;
  readonly firstEpoch: number;
  readonly lastEpoch: number;
}

export interface PoolPlan {
  readonly buffers: readonly PoolBuffer[];
  readonly bytes: number;
  /** The most bytes alive in one epoch: no plan can need less. */
  readonly lowerBound: number;
  /** Whether no plan needs fewer bytes than this one: proven, by the bound or by exhaustive search. */
  readonly optimal: boolean;
}

/** One entry point on its way through the passes; each pass fills in a part. */
export interface Entry {
  readonly name: string;
  readonly graph: Graph;
  /** Empty before fuse-layers; in order of execution after schedule. */
  readonly kernels: readonly Kernel[];
  /** The barrier epoch of each kernel; empty before schedule. Kernels of one epoch may run at the same time. */
  readonly epochs: ReadonlyMap<Kernel, number>;
  /** Undefined before plan-pool. */
  readonly pool: PoolPlan | undefined;
}

/** Everything a pass may look at besides the entry. */
export interface PassContext {
  readonly target: Target;
  /** By default true. Without, every operation is a dispatch of its own: to see what fusing brings. */
  readonly fuse?: boolean | undefined;
}

/** A pass over one entry point. */
export interface EntryPass {
  readonly name: string;
  readonly doc: string;
  run(entry: Entry, context: PassContext): Entry;
}
