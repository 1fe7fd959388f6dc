import type { Node } from '../ir/graph.js';
import type { DType } from '../ir/type.js';
import type { PlanKernel } from '../runtime/plan.js';
import { elementType } from './expression.js';

/** What a buffer argument is bound to: a value of the graph, or the record of the step. */
export type Operand = Node | 'step';

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

type Position = keyof typeof positionTypes;

/** Collects the parameter list of a kernel and what its buffers are bound to. */
export class ArgumentList {
  readonly operands: Operand[] = [];
  readonly declarations: string[] = [];
  readonly arguments: Argument[] = [];
  private readonly buffers = new Map<Node, string>();

  /** A buffer that the kernel reads; a value that is read twice is one argument. Returns its name. */
  read(name: string, value: Node, dtype: DType): string {
    const known = this.buffers.get(value);
    if (known !== undefined) return known;
    this.buffers.set(value, name);
    return this.buffer(name, value, `device const ${elementType[dtype]}* ${name}`);
  }

  /** A buffer that the kernel writes. */
  write(name: string, value: Node, dtype: DType): string {
    return this.buffer(name, value, `device ${elementType[dtype]}* ${name}`);
  }

  /** The record of the step, as `step`. */
  step(): void {
    this.buffer('step', 'step', 'constant Step& step');
  }

  threadgroup(name: string, type: string, bytes: number): void {
    const index = this.arguments.filter((argument) => argument.kind === 'threadgroup').length;
    this.declarations.push(`threadgroup ${type}* ${name} [[threadgroup(${index})]]`);
    this.arguments.push({ kind: 'threadgroup', name, index, bytes: Math.ceil(bytes / 16) * 16 });
  }

  position(...kinds: readonly Position[]): void {
    for (const kind of kinds) {
      const declaration = positionTypes[kind];
      this.declarations.push(`${declaration} [[${kind}]]`);
      this.arguments.push({ kind, name: declaration.split(' ')[1] ?? kind });
    }
  }

  private buffer(name: string, operand: Operand, declaration: string): string {
    const index = this.operands.length;
    this.declarations.push(`${declaration} [[buffer(${index})]]`);
    this.arguments.push({ kind: 'buffer', name, index });
    this.operands.push(operand);
    return name;
  }
}
