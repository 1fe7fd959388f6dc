import type { Node } from '../ir/graph.js';
import { packedFormats, planesOf, type PackedName, type Plane } from '../ir/packed.js';
import type { DType } from '../ir/type.js';
import type { PlanKernel } from '../runtime/plan.js';
import { elementType } from './expression.js';
import { planeType } from './packed.js';

/** A plane of a packed matrix. */
export interface PlaneOperand {
  readonly matrix: Node;
  readonly plane: Plane['name'];
}

/** What a buffer argument is bound to: a value of the graph, a plane of one, or the record of the step. */
export type Operand = Node | PlaneOperand | 'step';

type PlanArgument = PlanKernel['arguments'][number];

/** An argument of the text; how many bytes a buffer must have is known once it is bound. */
export type Argument =
  | Exclude<PlanArgument, { readonly kind: 'buffer' }>
  | Omit<Extract<PlanArgument, { readonly kind: 'buffer' }>, 'bytes'>;

const positionTypes = {
  threadgroup_position_in_grid: 'uint3 group',
  thread_index_in_threadgroup: 'uint thread_index',
  thread_index_in_simdgroup: 'uint lane',
  simdgroup_index_in_threadgroup: 'uint simdgroup',
} as const;

export type Position = keyof typeof positionTypes;

/** Collects the parameter list of a kernel and what its buffers are bound to: buffers first, then threadgroup memory, then positions. */
export class ArgumentList {
  readonly operands: Operand[] = [];
  /** Whether the kernel reads a sparse matrix. */
  sparse = false;
  private readonly buffers: Declared[] = [];
  private readonly threadgroups: Declared[] = [];
  private readonly positions: Declared[] = [];
  private readonly named = new Map<Node, string>();
  private readonly planes = new Map<Node, readonly string[]>();
  private readonly used = new Set<PackedName>();

  get declarations(): readonly string[] {
    return this.all.map(({ declaration }) => declaration);
  }

  /** Buffers as the parameters of a function. */
  parametersOf(names: ReadonlySet<string>): readonly string[] {
    const own = this.buffers.filter(({ argument: { name } }) => names.has(name));
    return own.map(({ declaration }) => declaration.replace(/ \[\[.*$/, ''));
  }

  get arguments(): readonly Argument[] {
    return this.all.map(({ argument }) => argument);
  }

  private get all(): readonly Declared[] {
    return [...this.buffers, ...this.threadgroups, ...this.positions];
  }

  /**
   * A buffer that the kernel reads; a value that is read twice is one argument. With `element` a thread reads only the
   * element that it is about to store a result in the place of. Returns its name.
   */
  read(name: string, value: Node, dtype: DType, access: 'read' | 'element' = 'read'): string {
    const known = this.named.get(value);
    if (known !== undefined) {
      if (access === 'read') this.readAnywhere(known);
      return known;
    }
    this.named.set(value, name);
    return this.buffer(name, access, value, `device const ${elementType[dtype]}* ${name}`);
  }

  /** Packed formats of what the kernel reads. */
  get formats(): ReadonlySet<PackedName> {
    return this.used;
  }

  /** The columns of a sparse matrix that the kernel reads. */
  readColumns(name: string, columns: Node): string {
    this.sparse = true;
    return this.read(name, columns, 'u16');
  }

  /** A packed matrix that the kernel reads, one buffer for each of its planes. Returns their names. */
  readPlanes(name: string, matrix: Node, dtype: PackedName): readonly string[] {
    this.used.add(dtype);
    const format = packedFormats[dtype];
    const names =
      this.planes.get(matrix) ??
      planesOf(format).map(({ name: plane }) => {
        const { type } = planeType(format, plane);
        const own = `${name}_${plane}`;
        return this.buffer(own, 'read', { matrix, plane }, `device const ${type}* ${own}`);
      });
    this.planes.set(matrix, names);
    return names;
  }

  private readAnywhere(name: string): void {
    const at = this.buffers.findIndex(({ argument }) => argument.name === name);
    const declared = this.buffers[at];
    if (declared?.argument.kind !== 'buffer') return;
    this.buffers[at] = { ...declared, argument: { ...declared.argument, access: 'read' } };
  }

  /** A buffer that the kernel writes. */
  write(name: string, value: Node, dtype: DType): string {
    return this.buffer(name, 'write', value, `device ${elementType[dtype]}* ${name}`);
  }

  /** The record of the step, as `step`. */
  step(): void {
    if (!this.operands.includes('step')) this.buffer('step', 'read', 'step', 'constant Step& step');
  }

  /** The same for the kernel that ends the step, which alone may change it. */
  endOfStep(): void {
    this.buffer('step', 'write', 'step', 'device Step& step');
  }

  threadgroup(name: string, type: string, bytes: number): void {
    const index = this.threadgroups.length;
    this.threadgroups.push({
      declaration: `threadgroup ${type}* ${name} [[threadgroup(${index})]]`,
      argument: { kind: 'threadgroup', name, index, bytes: Math.ceil(bytes / 16) * 16 },
    });
  }

  position(...kinds: readonly Position[]): void {
    for (const kind of kinds) {
      if (this.positions.some(({ argument }) => argument.kind === kind)) continue;
      const declaration = positionTypes[kind];
      this.positions.push({
        declaration: `${declaration} [[${kind}]]`,
        argument: { kind, name: declaration.split(' ')[1] ?? kind },
      });
    }
  }

  private buffer(
    name: string,
    access: 'read' | 'element' | 'write',
    operand: Operand,
    declaration: string,
  ): string {
    const index = this.operands.length;
    this.buffers.push({
      declaration: `${declaration} [[buffer(${index})]]`,
      argument: { kind: 'buffer', name, index, access },
    });
    this.operands.push(operand);
    return name;
  }
}

/** A parameter in the text, and what the plan says of it. */
interface Declared {
  readonly declaration: string;
  readonly argument: Argument;
}
