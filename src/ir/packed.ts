/**
 * Formats of matrices whose rows are small integers q in groups that share a scale. A row is a whole number of groups;
 * parts of the same kind lie together, in planes, so that kernels load them with wide, aligned, contiguous reads.
 */

/**
 * Where a group's scale s and bias b in `value = s·(q − zero) + b` come from:
 * - `half`: s is an f16 of the group;
 * - `half_bias`: s and b are;
 * - `block`: of a block of 256 elements, s = f16 of the block · signed 8-bit integer of the group (GGML's Q6_K);
 * - `block_bias`: likewise with unsigned integers, and b = −(f16 of the block · 8-bit integer of the group) (Q4_K, Q5_K).
 */
export type ScaleKind = 'half' | 'half_bias' | 'block' | 'block_bias';

export interface PackedFormat {
  readonly bits: 4 | 5 | 6 | 8;
  /** Elements of a row that share a scale. */
  readonly group: 16 | 32 | 64;
  readonly scale: ScaleKind;
  /** Half the range where there is no bias. 8-bit integers are signed instead: 0. */
  readonly zero: number;
}

/** `g32` in a name is the group, `b` a bias; `k` formats are those of GGML's K quantisations. */
export const packedFormats = {
  q8g32: { bits: 8, group: 32, scale: 'half', zero: 0 },
  q6g32: { bits: 6, group: 32, scale: 'half', zero: 32 },
  q5g32: { bits: 5, group: 32, scale: 'half', zero: 16 },
  q5g32b: { bits: 5, group: 32, scale: 'half_bias', zero: 0 },
  q4g32: { bits: 4, group: 32, scale: 'half', zero: 8 },
  q4g32b: { bits: 4, group: 32, scale: 'half_bias', zero: 0 },
  q4g64: { bits: 4, group: 64, scale: 'half', zero: 8 },
  q4g64b: { bits: 4, group: 64, scale: 'half_bias', zero: 0 },
  q6k: { bits: 6, group: 16, scale: 'block', zero: 32 },
  q5k: { bits: 5, group: 32, scale: 'block_bias', zero: 0 },
  q4k: { bits: 4, group: 32, scale: 'block_bias', zero: 0 },
} as const satisfies Record<string, PackedFormat>;

export type PackedName = keyof typeof packedFormats;
export const packedNames = Object.keys(packedFormats) as [PackedName, ...PackedName[]];

export const isPackedName = (name: string): name is PackedName => Object.hasOwn(packedFormats, name);

/**
 * What a plane holds, for every run of `elements` elements of a row `bytes` bytes:
 * - `quants` of 8 bits: the int8 of each element, in order;
 * - `quants` of 4 to 6 bits: the low 4 bits, byte j those of element j in its low and of element j + 16 in its high half;
 * - `high`: a little-endian uint32 for each further bit of q, lowest first, whose bit j is that of element j;
 * - `scales`, `biases`: f16 of a group; with blocks 8-bit integers of a group, the biases to be subtracted;
 * - `block_scales`, `block_biases`: f16 of a block.
 */
export interface Plane {
  readonly name: 'quants' | 'high' | 'scales' | 'biases' | 'block_scales' | 'block_biases';
  readonly elements: number;
  readonly bytes: number;
}

/** Elements of a block of the `block` kinds. */
export const blockElements = 256;

/** The planes of a format, in the order in which they lie in memory. */
export function planesOf(format: PackedFormat): readonly Plane[] {
  const { bits, group, scale } = format;
  const blocks = scale === 'block' || scale === 'block_bias';
  const bias = scale === 'half_bias' || scale === 'block_bias';
  const ofGroup = { elements: group, bytes: blocks ? 1 : 2 };
  const ofBlock = { elements: blockElements, bytes: 2 };
  return [
    { name: 'quants', elements: 32, bytes: bits === 8 ? 32 : 16 },
    ...(bits === 5 || bits === 6 ? [{ name: 'high', elements: 32, bytes: (bits - 4) * 4 } as const] : []),
    { name: 'scales', ...ofGroup },
    ...(bias ? [{ name: 'biases', ...ofGroup } as const] : []),
    ...(blocks ? [{ name: 'block_scales', ...ofBlock } as const] : []),
    ...(blocks && bias ? [{ name: 'block_biases', ...ofBlock } as const] : []),
  ];
}

/** Rows of a matrix in this format have a multiple of this many elements. */
export function rowMultiple(format: PackedFormat): number {
  const blocks = format.scale === 'block' || format.scale === 'block_bias';
  return blocks ? blockElements : Math.max(32, format.group);
}

export interface PlacedPlane extends Plane {
  /** From the start of the matrix, in bytes. */
  readonly offset: number;
  /** Of the whole plane, in bytes. */
  readonly size: number;
}

/**
 * Where the planes of a matrix [rows, columns] lie. `tileRows` rows are interleaved: a plane is
 * [ceil(rows / tileRows)][columns / elements][tileRows] runs, those of rows past the end zero; with 1, row-major. Every
 * plane starts at a multiple of `alignment` bytes.
 */
export function placePlanes(
  format: PackedFormat,
  [rows, columns]: readonly [number, number],
  { tileRows, alignment }: { readonly tileRows: number; readonly alignment: number },
): { readonly planes: readonly PlacedPlane[]; readonly bytes: number } {
  const padded = Math.ceil(rows / tileRows) * tileRows;
  let end = 0;
  const planes = planesOf(format).map((plane) => {
    const offset = Math.ceil(end / alignment) * alignment;
    const size = padded * (columns / plane.elements) * plane.bytes;
    end = offset + size;
    return { ...plane, offset, size };
  });
  return { planes, bytes: end };
}
