import type { Fault } from '../fault.js';

const graphs = 'test/devices/graphs.test.ts';
const goldens = 'test/devices/goldens.test.ts';
const story = 'test/devices/stories260k.test.ts';
const fused = 'test/devices/fused-kernels.test.ts';
const rows = 'test/devices/row-kernels.test.ts';
const parts = ['test/devices/split-attention.test.ts'];
const flash = ['test/devices/flash-attention.test.ts'];
const sampling = ['test/devices/sample.test.ts'];

const folder = 'src/codegen/templates';

/** Faults in the Metal text of kernels. */
export const templateFaults: readonly Fault[] = [
  {
    file: `${folder}/attention_scan.hbs`,
    find: 'mixed[i] *= keep;',
    replace: 'mixed[i] *= 1.0f;',
    what: 'attention does not rescale what it has summed so far',
    tests: [goldens],
  },
  {
    file: `${folder}/attention_scan.hbs`,
    find: 'total = total * keep + simd_sum',
    replace: 'total = total + simd_sum',
    what: 'attention does not rescale its total',
    tests: [goldens],
  },
  {
    file: `${folder}/attention_scan.hbs`,
    find: '{{score}} : -INFINITY;',
    replace: '{{score}} : 0.0f;',
    what: 'attention weighs positions past the last token',
    tests: [graphs, goldens],
  },
  {
    file: `${folder}/attention_parts.metal.hbs`,
    find: '((keys - first + {{partBlocks}} - 1) / {{partBlocks}})',
    replace: '((keys - first) / {{partBlocks}})',
    what: 'parts of the context are a block short',
    tests: parts,
  },
  {
    file: `${folder}/attention_parts.metal.hbs`,
    find: 'part[{{width}}] = greatest;',
    replace: 'part[{{width}}] = 0.0f;',
    what: 'parts of the context are combined without their greatest scores',
    tests: parts,
  },
  {
    file: `${folder}/attention_flash.metal.hbs`,
    find: 'begin + j >= start && begin + j < keys ?',
    replace: 'begin + j >= start && begin + j < end ?',
    what: 'tokens of a chunk see those after them',
    tests: flash,
  },
  {
    file: `${folder}/attention_flash.metal.hbs`,
    find: 'mixed[i].thread_elements() *= factors.thread_elements();',
    replace: '',
    what: 'attention of a chunk does not rescale what it has summed so far',
    tests: flash,
  },
  {
    file: `${folder}/attention_combine.metal.hbs`,
    find: 'mixed += metal::exp(head[p * {{stride}} + {{width}}] - most) * head[p * {{stride}} + d];',
    replace: 'mixed += head[p * {{stride}} + d];',
    what: 'parts of the context are combined without rescaling',
    tests: parts,
  },
  {
    file: `${folder}/combine.hbs`,
    find: 'shares[i * {{count}} + p] = metal::exp(head[p * {{stride}} + {{width}}] - most) / total;',
    replace: 'shares[i * {{count}} + p] = 1.0f / total;',
    what: 'a product combines parts of the context without rescaling',
    tests: parts,
  },
  {
    file: `${folder}/combine.hbs`,
    find: 'shares[head * {{count}} + p] * element',
    replace: 'shares[p] * element',
    what: 'a product combines all heads with the shares of the first',
    tests: parts,
  },
  {
    file: `${folder}/norm.hbs`,
    find: 'metal::precise::rsqrt(total / {{width}}.0f + {{eps}})',
    replace: 'metal::precise::rsqrt((total + {{eps}}) / {{width}}.0f)',
    what: 'eps is added before the mean is taken',
    tests: [rows],
  },
  {
    file: `${folder}/linear.metal.hbs`,
    find: '{{weight}};\n    threadgroup_barrier(mem_flags::mem_threadgroup);',
    replace: '{{weight}};',
    what: 'a product reads its normed operand while other threads still write it',
    tests: [goldens],
  },
  {
    file: `${folder}/linear.metal.hbs`,
    find: 'prepared[i] = row[i] * factor * {{weight}};',
    replace: 'prepared[i] = x[i] * factor * {{weight}};',
    what: 'a prefill norms the first token for all',
    tests: [story, goldens],
  },
  {
    file: `${folder}/linear.metal.hbs`,
    find: 'block += {{threadgroups}}',
    replace: 'block += {{threadgroups}} + 1',
    what: 'products whose threadgroups take several blocks leave rows out',
    tests: [goldens],
  },
  {
    file: `${folder}/linear_pairs.hbs`,
    find: '(first + r + 1);',
    replace: '(first + r);',
    what: 'a product stores both elements of a pair in one place',
    tests: [fused],
  },
  {
    file: `${folder}/rope.metal.hbs`,
    find: 'const float v0 = b * c + a * s;',
    replace: 'const float v0 = b * c - a * s;',
    what: 'a rotation by itself turns the wrong way',
    tests: [fused],
  },
  {
    file: `${folder}/rope.metal.hbs`,
    find: 'i = {{../dims}} + lane; i < {{../width}}',
    replace: 'i = {{../dims}} + lane + 1; i < {{../width}}',
    what: 'an element past those that turn is left out',
    tests: [fused],
  },
  {
    file: `${folder}/kernels.metal.hbs`,
    find: 'return i < dims ? slot - i + i / 2 + i % 2 * (dims / 2) : slot;',
    replace: 'return slot - i + i / 2 + i % 2 * (dims / 2);',
    what: 'products pair elements that do not turn',
    tests: [fused],
  },
  {
    file: `${folder}/kernels.metal.hbs`,
    find: 'for (uint j = 0; whole + j * lanes < length; ++j) {',
    replace: 'for (uint j = 0; whole + (j + 1) * lanes < length; ++j) {',
    what: 'products leave out the last elements of rows that do not fill all lanes',
    tests: [graphs],
  },
  {
    file: `${folder}/kernels.metal.hbs`,
    find: 'as_type<float>(uint(bits) << 16)',
    replace: 'as_type<float>((uint(bits) << 16) + 0x8000u)',
    what: 'bf16 weights come out half a unit too large',
    tests: [fused, goldens],
  },
  {
    file: `${folder}/kernels.metal.hbs`,
    find: 'x / (1.0f + metal::exp(-x))',
    replace: 'x / (1.0f + metal::exp(x))',
    what: 'silu has the sign of its exponent wrong',
    tests: [goldens],
  },
  {
    file: `${folder}/kernels.metal.hbs`,
    find: '0.797884561f',
    replace: '0.79788f',
    what: 'gelu is off in its sixth digit',
    tests: [rows, fused],
  },
  {
    file: `${folder}/kernels.metal.hbs`,
    find: 'x = 0.0f;\n    for (uint s = 0; s < simdgroups; ++s) x += scratch[s];',
    replace: 'x = 0.0f;\n    for (uint s = 1; s < simdgroups; ++s) x += scratch[s];',
    what: 'sums over a threadgroup leave out its first simdgroup',
    tests: [goldens],
  },
  {
    file: `${folder}/kernels.metal.hbs`,
    find: 'x = metal::max(x, scratch[s]);\n    threadgroup_barrier(mem_flags::mem_threadgroup);',
    replace: 'x = metal::max(x, scratch[s]);',
    what: 'a threadgroup writes its sums over maxima that are still being read',
    tests: [rows, fused],
  },
  {
    file: `${folder}/softmax.metal.hbs`,
    find: 'metal::exp(row[i] - greatest) / total',
    replace: 'metal::exp(row[i] - greatest)',
    what: 'softmax does not add up to 1',
    tests: [rows, fused],
  },
  {
    file: `${folder}/argmax.metal.hbs`,
    find: 'if (row[i] > best) {',
    replace: 'if (row[i] >= best) {',
    what: 'argmax takes the highest of equals',
    tests: [rows, fused],
  },
  {
    file: `${folder}/elementwise.metal.hbs`,
    find: 'metal::min({{width}}u, (group.y + 1) * {{block}})',
    replace: '(group.y + 1) * {{block}}',
    what: 'elementwise kernels write past the end of a row',
    tests: [graphs],
  },
  {
    file: `${folder}/sample.metal.hbs`,
    find: 'top_k > 0.0f && top_k < {{width}}.0f',
    replace: 'top_k < 0.0f && top_k < {{width}}.0f',
    what: 'sampling ignores top-k',
    tests: sampling,
  },
  {
    file: `${folder}/sample.metal.hbs`,
    find: 'const float enough = top_p * {{count}};',
    replace: 'const float enough = {{count}};',
    what: 'sampling ignores top-p',
    tests: sampling,
  },
  {
    file: `${folder}/sample.metal.hbs`,
    find: 'if (min_p > 0.0f) lowest',
    replace: 'if (min_p > 1.0f) lowest',
    what: 'sampling ignores min-p',
    tests: sampling,
  },
  {
    file: `${folder}/sample.metal.hbs`,
    find: 'gumbel(i, next, uint({{seed}}[0]))',
    replace: 'gumbel(i, next, 0 * uint({{seed}}[0]))',
    what: 'every seed draws the same ids',
    tests: sampling,
  },
  {
    file: `${folder}/sample.metal.hbs`,
    find: 'gumbel(i, next, uint({{seed}}[0]))',
    replace: 'gumbel(i, 0 * next, uint({{seed}}[0]))',
    what: 'the random numbers of all positions are the same',
    tests: sampling,
  },
  {
    file: `${folder}/sample.metal.hbs`,
    find: 'temperature * gumbel(',
    replace: 'gumbel(',
    what: 'sampling ignores the temperature',
    tests: sampling,
  },
  {
    file: `${folder}/sample.metal.hbs`,
    find: '        step.position = next;\n',
    replace: '',
    what: 'the position is not moved on: later tokens of a burst overwrite the first',
    tests: [...sampling, story],
  },
];
