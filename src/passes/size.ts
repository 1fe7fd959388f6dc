import type { Node } from '../ir/graph.js';
import { isPackedName, packedFormats, placePlanes } from '../ir/packed.js';
import { bindShape, bytesPerElement, elementCount, type DimBindings } from '../ir/type.js';

/** How the planes of packed matrices are laid out on a target. */
export interface PlaneLayout {
  readonly tileRows: number;
  readonly alignment: number;
}

const close: PlaneLayout = { tileRows: 1, alignment: 1 };

/** The bytes of a value in memory; of a packed matrix with what `layout` adds between its planes. */
export function bytesOf({ type }: Node, dims: DimBindings, layout = close): number {
  const shape = bindShape(type.shape, dims);
  if (!isPackedName(type.dtype)) return elementCount(shape) * bytesPerElement[type.dtype];
  return placePlanes(packedFormats[type.dtype], matrixShape(shape), layout).bytes;
}

export function matrixShape([rows = 1, columns = 1]: readonly number[]): readonly [number, number] {
  return [rows, columns];
}

export const alignUp = (bytes: number, alignment: number): number => Math.ceil(bytes / alignment) * alignment;
