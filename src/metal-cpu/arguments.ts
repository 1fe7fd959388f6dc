import { nearest, UserError } from '../diagnostic.js';
import type { InspectedKernel, InspectedParameter } from '../runtime/native.js';
import { bytesOf, shownValue, type BufferValue } from './buffer-value.js';

/** Memory of the device, and the host's bytes that it is a copy of. */
export interface Arena {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Whether the kernel may write it. */
  readonly written: boolean;
}

/** A buffer parameter and what it points to. */
export interface Binding {
  readonly parameter: InspectedParameter;
  /** Index of its arena. An array that is bound twice has one. */
  readonly arena: number;
  readonly bytes: number;
}

export interface Bindings {
  readonly arenas: readonly Arena[];
  /** In the order of the parameter list. */
  readonly bindings: readonly Binding[];
}

/** Bytes of threadgroup memory come in multiples of this. */
const threadgroupUnit = 16;

type Kind = 'buffer' | 'threadgroup';

/** Values by the parameters they are for, which are named by name or index. Each parameter has one, no value is left. */
function byParameter<T>(
  kernel: InspectedKernel,
  kind: Kind,
  values: Readonly<Record<string, T>>,
): (readonly [InspectedParameter, T])[] {
  const parameters = kernel.parameters.filter((parameter) => parameter.kind === kind);
  const declared = parameters.map(({ name, index }) => `${name} [[${kind}(${index})]]`).join(', ');
  const notes = [`its ${kind} parameters: ${declared === '' ? 'none' : declared}`];
  const given = new Map(Object.entries(values));
  const known = new Set(parameters.flatMap(({ name, index }) => [name, String(index)]));
  for (const key of given.keys()) {
    if (known.has(key)) continue;
    const near = nearest(
      key,
      parameters.map(({ name }) => name),
    );
    const slip = near === undefined ? '' : `; did you mean '${near}'?`;
    throw new UserError(`kernel ${kernel.name} has no ${kind} parameter '${key}'${slip}`, { notes });
  }
  return parameters.map((parameter) => {
    const keys = [parameter.name, String(parameter.index)].filter((key) => given.has(key));
    const [key] = keys;
    const value = key === undefined ? undefined : given.get(key);
    if (value === undefined)
      throw new UserError(`kernel ${kernel.name}: nothing is given for ${kind} ${parameter.name}`, { notes });
    if (keys.length > 1)
      throw new UserError(`kernel ${kernel.name}: ${keys.join(' and ')} are the same ${kind}`, { notes });
    return [parameter, value] as const;
  });
}

const sameMemory = (a: Uint8Array, b: Uint8Array): boolean =>
  a.buffer === b.buffer && a.byteOffset === b.byteOffset && a.byteLength === b.byteLength;

const overlap = (a: Uint8Array, b: Uint8Array): boolean =>
  a.buffer === b.buffer &&
  a.byteOffset < b.byteOffset + b.byteLength &&
  b.byteOffset < a.byteOffset + a.byteLength;

/**
 * What the buffer parameters of the kernel point to.
 * @throws {UserError} when one is missing, is given twice or is no parameter; when a number is given for one that may be
 * written; when two arrays share only a part of their bytes, and the kernel may write to it
 */
export function bindingsOf(
  kernel: InspectedKernel,
  buffers: Readonly<Record<string, BufferValue>>,
): Bindings {
  const arenas: Arena[] = [];
  const bindings = byParameter(kernel, 'buffer', buffers).map(([parameter, value]): Binding => {
    const { name, type } = parameter;
    const written = parameter.access !== 'read';
    if (written && !ArrayBuffer.isView(value))
      throw new UserError(`buffer ${name} may be written: give an array, not ${shownValue(value)}`, {
        notes: [`a number stands for what is only read, like \`constant ${type}&\``],
      });
    const bytes = bytesOf(value, type, `buffer ${name}`);
    const found = arenas.findIndex((arena) => sameMemory(arena.bytes, bytes));
    const arena = found < 0 ? arenas.length : found;
    arenas[arena] = { name, bytes, written: written || (arenas[arena]?.written ?? false) };
    return { parameter, arena, bytes: bytes.byteLength };
  });
  for (const [i, a] of arenas.entries())
    for (const b of arenas.slice(i + 1))
      if ((a.written || b.written) && overlap(a.bytes, b.bytes))
        throw new UserError(`buffers ${a.name} and ${b.name} of kernel ${kernel.name} overlap in part`, {
          notes: ['give arrays of their own, or the same array for both'],
        });
  return { arenas, bindings };
}

/**
 * Bytes of each threadgroup parameter, by its index.
 * @throws {UserError} as `bindingsOf`
 */
export function threadgroupBytes(
  kernel: InspectedKernel,
  sizes: Readonly<Record<string, number>>,
): ReadonlyMap<number, number> {
  const given = byParameter(kernel, 'threadgroup', sizes);
  for (const [{ name }, bytes] of given)
    if (!(bytes >= threadgroupUnit && bytes % threadgroupUnit === 0))
      throw new UserError(
        `threadgroup ${name} must have a multiple of ${threadgroupUnit} bytes, as Metal demands, not ${bytes}`,
      );
  return new Map(given.map(([{ index }, bytes]) => [index, bytes]));
}
