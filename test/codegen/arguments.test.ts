import { describe, expect, it } from 'vitest';
import { ArgumentList } from '../../src/codegen/arguments.js';
import { f32 } from '../../src/ir/type.js';
import { inputOf } from '../support/graphs.js';

const value = inputOf('value', f32('T', 4));
const result = inputOf('result', f32('T', 4));

/** Names and access of the buffers, in order. */
const buffers = (list: ArgumentList): string[] =>
  list.arguments.flatMap((argument) =>
    argument.kind === 'buffer' ? [`${argument.index} ${argument.name} ${argument.access}`] : [],
  );

describe('ArgumentList', () => {
  it('takes a value that is read twice once, under its first name', () => {
    const list = new ArgumentList();
    expect(list.read('x', value, 'f32')).toBe('x');
    expect(list.read('r', value, 'f32')).toBe('x');
    expect(buffers(list)).toEqual(['0 x read']);
    expect(list.operands).toEqual([value]);
  });

  it.each([
    [['element', 'element'], 'element'],
    [['element', 'read'], 'read'],
    [['read', 'element'], 'read'],
  ] as const)(
    'lets a value read as %j be overwritten only where every reading is of the own element',
    (ways, access) => {
      const list = new ArgumentList();
      for (const way of ways) list.read('x', value, 'f32', way);
      expect(buffers(list)).toEqual([`0 x ${access}`]);
    },
  );

  it('numbers buffers and threadgroup memory apart, and lists positions last, once', () => {
    const list = new ArgumentList();
    list.position('thread_index_in_simdgroup');
    list.threadgroup('scratch', 'float', 20);
    list.read('x', value, 'bf16');
    list.step();
    list.write('y', result, 'f32');
    list.step();
    list.position('thread_index_in_simdgroup', 'threadgroup_position_in_grid');
    expect(list.declarations).toEqual([
      'device const ushort* x [[buffer(0)]]',
      'constant Step& step [[buffer(1)]]',
      'device float* y [[buffer(2)]]',
      'threadgroup float* scratch [[threadgroup(0)]]',
      'uint lane [[thread_index_in_simdgroup]]',
      'uint3 group [[threadgroup_position_in_grid]]',
    ]);
    expect(list.operands).toEqual([value, 'step', result]);
    expect(list.arguments).toContainEqual({ kind: 'threadgroup', name: 'scratch', index: 0, bytes: 32 });
  });
});
