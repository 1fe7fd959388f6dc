import type { Fault } from '../fault.js';

const graphs = 'test/devices/graphs.test.ts';
const expression = 'test/codegen/expression.test.ts';
const plan = 'test/codegen/plan.test.ts';
const goldens = 'test/devices/goldens.test.ts';
const fused = 'test/devices/fused-kernels.test.ts';
const linear = [fused, graphs];

/** Faults in what writes the text of kernels, and the plan. */
export const codegenFaults: readonly Fault[] = [
  {
    file: 'src/codegen/expression.ts',
    find: "times('(step.tokens - 1)', stride)",
    replace: "times('step.tokens', stride)",
    what: 'the logits of a prefill are those of a row past its last token',
    tests: [expression, graphs],
  },
  {
    file: 'src/codegen/expression.ts',
    find: "access.fromPosition ? times('step.position', stride) : ''",
    replace: "''",
    what: 'every step reads the ids of the first tokens of the text',
    tests: ['test/devices/stories260k.test.ts'],
  },
  {
    file: 'src/codegen/expression.ts',
    find: '`(${row} % ${rows})`',
    replace: 'row',
    what: 'a ring is written and read past its end',
    tests: [expression, 'test/devices/sliding-window.test.ts'],
  },
  {
    file: 'src/codegen/expression.ts',
    find: 'while (digits < 9 &&',
    replace: 'while (digits < 6 &&',
    what: 'constants lose their last digits',
    tests: [expression],
  },
  {
    file: 'src/codegen/epilogue.ts',
    find: "add: ([a = '', b = '']) => `${a} + ${b}`",
    replace: "add: ([a = '']) => `${a} + ${a}`",
    what: 'kernels add the first operand to itself',
    tests: [graphs],
  },
  {
    file: 'src/codegen/write-linear.ts',
    find: 'part.attrs.sizes.slice(0, part.attrs.part).reduce((a, b) => a + b, 0)',
    replace: 'part.attrs.sizes.slice(1, part.attrs.part).reduce((a, b) => a + b, 0)',
    what: 'the parts of a product are made of the wrong rows',
    tests: [goldens],
  },
  {
    file: 'src/codegen/write-linear.ts',
    find: '[${sum(bias.start, n, String(offset))}]',
    replace: '[${sum(bias.start, n)}]',
    what: 'the parts of a product get the bias of the first',
    tests: [fused, graphs],
  },
  {
    file: 'src/codegen/write-linear.ts',
    find: "stored: whole ? 'lane == 0' :",
    replace: "stored: n > 0 ? 'lane == 0' :",
    what: 'a product whose rows do not fill the last block writes past its result',
    tests: linear,
  },
  {
    file: 'src/codegen/write-linear.ts',
    find: "angles: sum(buffer, start, times(inParentheses(sum('step.position', token)), dims)),",
    replace: "angles: sum(buffer, start, times(inParentheses(sum('', token)), dims)),",
    what: 'rotations in a product begin at 0 in every step',
    tests: linear,
  },
  {
    file: 'src/codegen/write-linear.ts',
    find: ": 'a * c - b * s',",
    replace: ": 'a * c + b * s',",
    what: 'a product turns its pairs the wrong way',
    tests: linear,
  },
  {
    file: 'src/codegen/write-rows.ts',
    find: 'eps: floatLiteral(eps)',
    replace: 'eps: floatLiteral(node.attrs.eps * 0)',
    what: 'norms are computed without eps',
    tests: ['test/devices/row-kernels.test.ts'],
  },
  {
    file: 'src/codegen/write-attention.ts',
    find: "keys: sum('step.position', iteration.rows > 1 ? 't' : '', '1'),",
    replace: "keys: sum('step.position', iteration.rows > 1 ? 't' : ''),",
    what: 'attention does not see its own token',
    tests: ['test/codegen/ring.test.ts', graphs, goldens],
  },
  {
    file: 'src/codegen/write-attention.ts',
    find: '`keys - metal::min(keys, ${window}u)`',
    replace: '`keys - metal::min(keys, ${window + 1}u)`',
    what: 'attention sees one token more than its window',
    tests: ['test/codegen/ring.test.ts', 'test/devices/sliding-window.test.ts'],
  },
  {
    file: 'src/codegen/write-attention.ts',
    find: "heads === groups ? 'head' : `head / ${heads / groups}`",
    replace: "heads === groups ? 'head' : `head % ${groups}`",
    what: 'heads are paired with the wrong keys',
    tests: [goldens],
  },
  {
    file: 'src/codegen/kernels.ts',
    find: "'if (t >= step.tokens) return;'",
    replace: "''",
    what: 'a short prefill computes tokens that are not there, and stores them',
    tests: [fused],
  },
  {
    file: 'src/codegen/emit.ts',
    find: 'texts[indexOf.get(name) ?? 0] !== text; i++)',
    replace: "texts[indexOf.get(name) ?? 0] === ''; i++)",
    what: 'kernels of one name that read differently are taken for one',
    tests: [expression, graphs, goldens],
  },
  {
    file: 'src/codegen/arguments.ts',
    find: "if (access === 'read') this.readAnywhere(known);",
    replace: '',
    what: 'the plan says that an operand may be overwritten though all of it is read',
    tests: ['test/codegen/arguments.test.ts', plan],
  },
  {
    file: 'src/codegen/plan.ts',
    find: 'bytes: Math.min(...bytes)',
    replace: 'bytes: Math.min(4, ...bytes)',
    what: 'the plan asks for less memory than a kernel touches',
    tests: [plan],
  },
  {
    file: 'src/codegen/plan.ts',
    find: 'const barrier = own !== epoch;',
    replace: 'const barrier = own > epoch + 1;',
    what: 'the plan leaves out barriers',
    tests: [plan],
  },
  {
    file: 'src/codegen/plan.ts',
    find: 'this.bytes = alignUp(offset + bytes, this.alignment);',
    replace: 'this.bytes = alignUp(offset + bytes, this.alignment / this.alignment);',
    what: 'weights start where Metal does not allow it',
    tests: [plan],
  },
  {
    file: 'src/codegen/plan.ts',
    find: 'if (elementCount(shape) < 2 ** 32) continue;',
    replace: 'if (elementCount(shape) < 2 ** 33) continue;',
    what: 'tensors are compiled that kernels cannot count the elements of',
    tests: ['test/errors/'],
  },
  {
    file: 'src/codegen/plan.ts',
    find: 'if (i === j || !region || !overlap(target, region)) return;',
    replace: 'if (i === j || !region || !overlap(target, region) || i !== j) return;',
    what: 'a plan may bind a result over an operand that a kernel still reads',
    tests: [plan],
  },
];
