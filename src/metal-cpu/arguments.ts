import { UserError } from '../diagnostic.js';
import type { InspectedKernel, InspectedParameter } from '../runtime/native.js';
import { bytesOf, type BufferValue } from './buffer-value.js';

/** A buffer parameter and the bytes that it points to. */
export interface Binding {
  readonly parameter: InspectedParameter;
  readonly bytes: Uint8Array;
}

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
  const left = new Map(Object.entries(values));
  const found = parameters.map((parameter) => {
    const keys = [parameter.name, String(parameter.index)].filter((key) => left.has(key));
    const [key] = keys;
    const value = key === undefined ? undefined : left.get(key);
    if (key === undefined || value === undefined)
      throw new UserError(`kernel ${kernel.name}: nothing is given for ${kind} ${parameter.name}`, { notes });
    if (keys.length > 1)
      throw new UserError(`kernel ${kernel.name}: ${keys.join(' and ')} are the same ${kind}`, { notes });
    left.delete(key);
    return [parameter, value] as const;
  });
  const [unknown] = left.keys();
  if (unknown !== undefined)
    throw new UserError(`kernel ${kernel.name} has no ${kind} parameter '${unknown}'`, { notes });
  return found;
}

/**
 * What each buffer parameter of the kernel points to, in the order of its parameter list.
 * @throws {UserError} when one is missing, is given twice or is no parameter
 */
export function bindingsOf(
  kernel: InspectedKernel,
  buffers: Readonly<Record<string, BufferValue>>,
): Binding[] {
  return byParameter(kernel, 'buffer', buffers).map(([parameter, value]) => ({
    parameter,
    bytes: bytesOf(value, parameter.type, `buffer ${parameter.name}`),
  }));
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
    if (!Number.isInteger(bytes) || bytes < 1)
      throw new UserError(`threadgroup ${name} must have a whole number of bytes, not ${bytes}`);
  return new Map(given.map(([{ index }, bytes]) => [index, bytes]));
}
