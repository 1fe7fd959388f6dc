import type {
  NativeAddon,
  NativeArena,
  NativeBinding,
  NativeDispatch,
  NativeProgram,
  NativeStats,
  ProgramSpec,
} from './native.js';
import type { Plan } from './plan.js';

/**
 * How the dispatches of a step reach the device: `whole`, all in one submission; `dispatches`, each in a submission of
 * its own that is waited for; `copies`, which also copies its tensors from the host before it and its results to the host
 * after it; `allocations`, for which every buffer of a dispatch is also allocated anew. Weights always stay on the device.
 */
export type Execution = 'whole' | 'dispatches' | 'copies' | 'allocations';

/** As `createProgram` of the addon, in any way of execution. */
export async function createProgram(
  addon: NativeAddon,
  device: string,
  spec: ProgramSpec,
  plan: Plan,
  execution: Execution = 'whole',
): Promise<NativeProgram> {
  if (execution === 'whole') return addon.createProgram(device, spec);
  const parts = new Parts(spec, plan, execution);
  return new DispatchByDispatch(
    await addon.createProgram(device, { ...spec, arenas: parts.arenas, entries: parts.entries }),
    parts,
  );
}

/** Bytes of the host and where they are on the device. */
interface Copy {
  readonly arena: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** A dispatch by itself. */
interface Part {
  readonly entry: number;
  readonly allocated: readonly number[];
  readonly copiesIn: readonly Copy[];
  readonly copiesOut: readonly Copy[];
}

/** The entries of a plan taken apart: one for each dispatch. */
class Parts {
  readonly arenas: NativeArena[];
  readonly entries: { readonly name: string; readonly dispatches: readonly NativeDispatch[] }[] = [];
  /** Those of each entry of the plan, in order. */
  readonly of: readonly (readonly Part[])[];
  /** What the host has of each arena of the plan; empty when everything stays on the device. */
  readonly host: readonly (Uint8Array | undefined)[];
  /** Arenas of one buffer each, by which of a dispatch's buffers they are, and of how many bytes. */
  private readonly buffers = new Map<string, number>();

  constructor(
    spec: ProgramSpec,
    private readonly plan: Plan,
    private readonly execution: Execution,
  ) {
    this.arenas = [...spec.arenas];
    const onHost = ({ file }: NativeArena): boolean => execution !== 'dispatches' && file === undefined;
    this.host = spec.arenas.map((arena) => (onHost(arena) ? new Uint8Array(arena.bytes) : undefined));
    if (execution === 'allocations')
      this.arenas = spec.arenas.map((arena) => (onHost(arena) ? { ...arena, bytes: 0 } : arena));
    this.of = spec.entries.map(({ name, dispatches }) =>
      dispatches.map((dispatch, i) => this.part(`${name} ${i}`, dispatch)),
    );
  }

  private part(name: string, dispatch: NativeDispatch): Part {
    const buffers =
      this.plan.kernels[dispatch.kernel]?.arguments.filter(({ kind }) => kind === 'buffer') ?? [];
    const bindings: NativeBinding[] = [];
    const copiesIn: Copy[] = [];
    const copiesOut: Copy[] = [];
    const allocated: number[] = [];
    for (const [i, binding] of dispatch.bindings.entries()) {
      const { offset, bytes } = binding;
      const host = this.host[binding.arena];
      const own = host && this.execution === 'allocations' ? this.buffer(i, bytes) : undefined;
      if (own !== undefined) allocated.push(own);
      const place = own === undefined ? binding : { arena: own, offset: 0, bytes };
      bindings.push(place);
      if (!host) continue;
      const copy = { ...place, bytes: host.subarray(offset, offset + bytes) };
      const argument = buffers[i];
      const written = argument?.kind === 'buffer' && argument.access === 'write';
      if (written) copiesOut.push(copy);
      // Of what outlives a step, a kernel may write a part.
      if (!written || this.arenas[binding.arena]?.name !== 'pool') copiesIn.push(copy);
    }
    this.entries.push({ name, dispatches: [{ ...dispatch, bindings }] });
    return { entry: this.entries.length - 1, allocated, copiesIn, copiesOut };
  }

  private buffer(position: number, bytes: number): number {
    const name = `buffer ${position} of ${bytes} bytes`;
    const known = this.buffers.get(name);
    if (known !== undefined) return known;
    this.buffers.set(name, this.arenas.length);
    return this.arenas.push({ name, bytes }) - 1;
  }
}

/** A program whose submissions are many of the device's, one for each dispatch. */
class DispatchByDispatch implements NativeProgram {
  constructor(
    private readonly program: NativeProgram,
    private readonly parts: Parts,
  ) {}

  write(arena: number, offset: number, data: Uint8Array): void {
    const host = this.parts.host[arena];
    if (host) host.set(data, offset);
    else this.program.write(arena, offset, data);
  }

  read(arena: number, offset: number, into: Uint8Array): void {
    const host = this.parts.host[arena];
    if (host) into.set(host.subarray(offset, offset + into.length));
    else this.program.read(arena, offset, into);
  }

  clear(arena: number): void {
    const host = this.parts.host[arena];
    if (host) host.fill(0);
    else this.program.clear(arena);
  }

  reallocate(arena: number): void {
    const host = this.parts.host[arena];
    if (host) host.fill(0);
    else this.program.reallocate(arena);
  }

  async submit(entry: number, steps = 1): Promise<void> {
    for (let step = 0; step < steps; step++) {
      for (const part of this.parts.of[entry] ?? []) {
        for (const arena of part.allocated) this.program.reallocate(arena);
        for (const { arena, offset, bytes } of part.copiesIn) this.program.write(arena, offset, bytes);
        await this.program.submit(part.entry);
        for (const { arena, offset, bytes } of part.copiesOut) this.program.read(arena, offset, bytes);
      }
    }
  }

  stats(): NativeStats {
    return this.program.stats();
  }

  close(): void {
    this.program.close();
  }
}
