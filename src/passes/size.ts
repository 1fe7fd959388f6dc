import type { Node } from '../ir/graph.js';
import { bindShape, bytesPerElement, elementCount, type DimBindings } from '../ir/type.js';

export function bytesOf(node: Node, dims: DimBindings): number {
  return elementCount(bindShape(node.type.shape, dims)) * bytesPerElement[node.type.dtype];
}

export const alignUp = (bytes: number, alignment: number): number => Math.ceil(bytes / alignment) * alignment;
