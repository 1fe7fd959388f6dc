import { describe, expect, it } from 'vitest';
import { makeNode } from '../../src/ir/graph.js';
import { packedFormats, packedNames, placePlanes, planesOf } from '../../src/ir/packed.js';
import { parseGraph } from '../../src/ir/parse.js';
import { formatGraph } from '../../src/ir/text.js';
import type { TensorType } from '../../src/ir/type.js';
import { bytesOf } from '../../src/passes/size.js';
import { renderedError } from '../support/snapshot.js';
import { inputOf } from '../support/graphs.js';

const text = `graph small {
  %tokens = input : i32[T]
  @table : q6k[40, 256]
  @places : bf16[64, 256]
  @up : q4g32[96, 256] transposed
  %embed = embed %tokens, @table : f32[T, 256]
  %positions = positions @places : bf16[T, 256]
  %x = add %embed, %positions : f32[T, 256]
  %linear = linear %x, @up : f32[T, 96]
  return logits = %linear
}
`;

describe('packed types', () => {
  it('are read back from text', () => {
    expect(formatGraph(parseGraph(text))).toBe(text);
  });

  it.each([
    ['another op reads them', text.replace('bf16[64, 256]', 'q8g32[64, 256]')],
    ['rows do not divide', text.replace('q6k[40, 256]', 'q6k[40, 128]')],
    ['they are no matrix', text.replace('q6k[40, 256]', 'q4g32[256]')],
    ['there is no such format', text.replace('q6k', 'q7k')],
    ['they are an input', text.replace('i32[T]', 'q8g32[T]')],
  ])('are refused where %s', (_, wrong) => {
    expect(renderedError(() => parseGraph(wrong, 'small.ir'), process.cwd())).toMatchSnapshot();
  });

  it('are no matrix of a bias, a gain or an operand', () => {
    const packed = makeNode('weight', [], { name: 'w', dtype: 'q8g32', shape: [4, 32] });
    const x = (type: TensorType) => inputOf('x', type);
    const f32 = (...shape: (number | string)[]) => x({ dtype: 'f32', shape });
    expect(() => makeNode('linear', [packed, f32(8, 32)], {})).toThrow('x q8g32[4, 32] is packed');
    expect(() => makeNode('linear', [f32('T', 32), f32(4, 32), packed], {})).toThrow(
      'bias q8g32[4, 32] is packed',
    );
    expect(() => makeNode('reshape', [packed], { shape: [4, 2, 16] })).toThrow('x q8g32[4, 32] is packed');
    expect(() => makeNode('rms_norm', [f32('T', 32), packed], { eps: 1 })).toThrow(
      'weight q8g32[4, 32] is packed',
    );
  });

  it('have the bytes of their planes', () => {
    for (const name of packedNames) {
      const shape = [6, 512] as const;
      const node = makeNode('weight', [], { name: 'w', dtype: name, shape: [...shape] });
      const planes = planesOf(packedFormats[name]);
      const perRow = planes.reduce((sum, { elements, bytes }) => sum + (512 / elements) * bytes, 0);
      expect(bytesOf(node, {})).toBe(6 * perRow);
      const layout = { tileRows: 4, alignment: 256 };
      const placed = placePlanes(packedFormats[name], shape, layout);
      expect(bytesOf(node, {}, layout)).toBe(placed.bytes);
      expect(placed.planes.every(({ offset }) => offset % 256 === 0)).toBe(true);
      expect(placed.planes.reduce((sum, { size }) => sum + size, 0)).toBe(8 * perRow);
    }
  });
});
