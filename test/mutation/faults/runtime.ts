import type { Fault } from '../fault.js';

const plan = ['test/runtime/plan.test.ts'];
const session = ['test/runtime/session.test.ts'];

/** Faults in reading plans, running them, and in weights. */
export const runtimeFaults: readonly Fault[] = [
  {
    file: 'src/runtime/plan.ts',
    find: 'expect(entry.outputs.logits.bytes === logits,',
    replace: 'expect(entry.outputs.logits.bytes > 0 || logits === 0,',
    what: 'a plan whose logits are too short is run, and the host reads what lies behind them',
    tests: plan,
  },
  {
    file: 'src/runtime/plan.ts',
    find: "expect(plan.inputs[name].bytes === bytes, ['inputs', name, 'bytes'], `must be ${bytes}`);",
    replace: '',
    what: 'a plan whose inputs are too short is run, and the host writes past them',
    tests: plan,
  },
  {
    file: 'src/runtime/plan.ts',
    find: 'expect(entry.tokens <= plan.context,',
    replace: 'expect(entry.tokens > 0,',
    what: 'a plan whose steps are longer than its context is run',
    tests: plan,
  },
  {
    file: 'src/runtime/session.ts',
    find: 'this.writeRegion(inputs.tokens, Int32Array.from(tokens), this.position);',
    replace: 'this.writeRegion(inputs.tokens, Int32Array.from(tokens), 0);',
    what: 'ids are written where the first tokens of the text lie',
    tests: ['test/devices/stories260k.test.ts'],
  },
  {
    file: 'src/runtime/session.ts',
    find: 'this.position = start + i;',
    replace: 'this.position = start;',
    what: 'after a burst of tokens the text goes on from the wrong place',
    tests: session,
  },
  {
    file: 'src/runtime/execution.ts',
    find: 'if (written) copiesOut.push(copy);',
    replace: '',
    what: 'what a dispatch computes by itself does not come back to the host',
    tests: ['test/devices/execution.test.ts'],
  },
  {
    file: 'src/runtime/session.ts',
    find: 'if (ends.has(id)) return;',
    replace: '',
    what: 'generation goes on after the end of the text',
    tests: session,
  },
  {
    file: 'src/runtime/session.ts',
    find: 'if (needed > this.plan.context) {',
    replace: 'if (needed > this.plan.context + 1) {',
    what: 'a prompt a token longer than the context overwrites other memory',
    tests: session,
  },
  {
    file: 'src/runtime/session.ts',
    find: 'if (size !== plan.arenas.weights.bytes)',
    replace: 'if (size < 0)',
    what: 'weights of another build are run',
    tests: ['test/errors/'],
  },
  {
    file: 'src/weights/dtype.ts',
    find: 'scratch.setUint32(0, bits << 16);',
    replace: 'scratch.setUint32(0, (bits << 16) | 0x8000);',
    what: 'bf16 tensors are read half a unit too large',
    tests: ['test/weights/safetensors.test.ts'],
  },
  {
    file: 'src/weights/dtype.ts',
    find: 'sign * fraction * 2 ** -24',
    replace: 'sign * fraction * 2 ** -25',
    what: 'subnormal f16 numbers are read half as large',
    tests: ['test/weights/safetensors.test.ts'],
  },
  {
    file: 'native/pack/slices.cc',
    find: 'weight->offsets[0] + (row * weight->columns + column) * plain.bytes;',
    replace: 'weight->offsets[0] + row * weight->columns * plain.bytes;',
    what: 'weights larger than a slice are packed over themselves',
    tests: ['test/weights/pack.test.ts'],
  },
  {
    file: 'src/weights/fit.ts',
    find: '\n  checkUnused(graph, checkpoint);\n',
    replace: '\n',
    what: 'a checkpoint with parts that the model lacks is compiled without a word',
    tests: ['test/errors/'],
  },
];
