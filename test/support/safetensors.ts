import { writeFileSync } from 'node:fs';

export interface StoredTensor {
  /** As safetensors spells it, e.g. `F32`. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Row-major, little-endian. */
  readonly data: Uint8Array;
}

/** The bytes of a file whose header is `header` verbatim. */
export function safetensorsBytes(header: string | Uint8Array, data: Uint8Array = new Uint8Array()): Buffer {
  const text = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, data]);
}

/** The header and the data of a file that holds `tensors` one after the other. */
export function layOut(tensors: Readonly<Record<string, StoredTensor>>): { header: string; data: Buffer } {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.length] };
    parts.push(data);
    offset += data.length;
  }
  return { header: JSON.stringify(header), data: Buffer.concat(parts) };
}

/** Writes a valid safetensors file; the header is padded so that the data is aligned to 8 bytes, as the libraries do. */
export function writeSafetensors(file: string, tensors: Readonly<Record<string, StoredTensor>>): void {
  const { header, data } = layOut(tensors);
  writeFileSync(file, safetensorsBytes(header.padEnd(Math.ceil(header.length / 8) * 8), data));
}

/** An f32 tensor of the given values. */
export function f32(shape: readonly number[], values: readonly number[]): StoredTensor {
  return { dtype: 'F32', shape, data: new Uint8Array(Float32Array.from(values).buffer) };
}
