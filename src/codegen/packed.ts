import { packedFormats, planesOf, type PackedFormat, type PackedName, type Plane } from '../ir/packed.js';
import type { Target } from '../passes/target.js';
import { floatLiteral, inParentheses, sum, times } from './expression.js';

/** Metal text of the packed formats (src/ir/packed.ts): a struct for a row, and how its elements are read. */

type PlaneName = Plane['name'];

const hasBlocks = ({ scale }: PackedFormat): boolean => scale === 'block' || scale === 'block_bias';
const hasBias = ({ scale }: PackedFormat): boolean => scale === 'half_bias' || scale === 'block_bias';

/** The type of a plane's parts, and their bytes. */
export function planeType(
  format: PackedFormat,
  plane: PlaneName,
): { readonly type: string; readonly bytes: number } {
  if (plane === 'quants') return { type: format.bits === 8 ? 'char' : 'uchar', bytes: 1 };
  if (plane === 'high') return { type: 'uint', bytes: 4 };
  if (!hasBlocks(format) || plane.startsWith('block')) return { type: 'half', bytes: 2 };
  return { type: format.scale === 'block' ? 'char' : 'uchar', bytes: 1 };
}

/** `packed 4-bit integers less 8, a half scale for every 32` */
function docOf(format: PackedFormat): string {
  const { bits, zero, group } = format;
  const integers = `${bits}-bit integers${zero > 0 ? ` less ${zero}` : ''}`;
  const scales = `a scale${hasBias(format) ? ' and a bias' : ''} for every ${group}`;
  return `${integers}, ${scales}${hasBlocks(format) ? ', in parts of those of a block of 256' : ''}`;
}

/** The scale (or bias) that applies from element 32 * run + `at` on. */
function factor(format: PackedFormat, plane: 'scales' | 'biases', at: string): string {
  const { group } = format;
  const index = group < 32 ? sum('2 * run', at) : group > 32 ? `run / ${group / 32}` : 'run';
  const own = `float(row.${plane}[${index}])`;
  if (!hasBlocks(format)) return own;
  const product = `float(row.block_${plane}[run / 8]) * ${own}`;
  return plane === 'biases' ? `-(${product})` : product;
}

/** The integer of an element from the half of a byte that holds its low bits, and bit `j` of the further ones. */
function integer({ bits }: PackedFormat, half: string, j: string): string {
  const further = [...Array(bits - 4).keys()].map((bit) => ` | (high${bit} >> ${j} & 1) << ${4 + bit}`);
  return further.length === 0 ? `int(${half})` : `int((${half})${further.join('')})`;
}

const less = (value: string, zero: number): string =>
  zero === 0 ? `float(${value})` : `float(${value} - ${zero})`;

/** Bytes as simdgroups of several lanes load them, 16 at a time, into `words`. */
function wideLoads(count: number): string[] {
  const names = count === 1 ? ['packed'] : ['first', 'second'];
  const loads = names.map(
    (name, i) =>
      `const uint4 ${name} = ((device const uint4*)row.quants)[${sum(times('run', count), String(i))}];`,
  );
  const words = names.flatMap((name) => ['x', 'y', 'z', 'w'].map((part) => `${name}.${part}`));
  return [...loads, `const uint words[${4 * count}] = {${words.join(', ')}};`];
}

/** How element j and element j + 16 of a run are read, as `lower` and `upper`. */
function readsOf(format: PackedFormat, wide: boolean) {
  if (format.bits === 8) {
    const word = (at: string): string => `int(words[${at}] << (24 - j % 4 * 8)) >> 24`;
    const plain = (at: string): string => `int(row.quants[${sum('run * 32', at)}])`;
    return {
      loads: wide ? wideLoads(2) : [],
      integers: [
        `const int lower = ${wide ? word('j / 4') : plain('j')};`,
        `const int upper = ${wide ? word('j / 4 + 4') : plain('j + 16')};`,
      ],
    };
  }
  return {
    loads: wide ? wideLoads(1) : [],
    integers: [
      `const uint byte = ${wide ? 'words[j / 4] >> (j % 4 * 8)' : 'row.quants[run * 16 + j]'};`,
      `const int lower = ${integer(format, 'byte & 15', 'j')};`,
      `const int upper = ${integer(format, 'byte >> 4 & 15', '(j + 16)')};`,
    ],
  };
}

/** The context of the template `packed`. */
export function writeFormat(
  name: PackedName,
  { simdWidth, split }: Target,
  tiled: boolean,
): Readonly<Record<string, unknown>> {
  const format: PackedFormat = packedFormats[name];
  const { bits, group, zero } = format;
  const planes = planesOf(format).map((plane) => {
    const { type, bytes } = planeType(format, plane.name);
    const each = (plane.elements * bytes) / plane.bytes;
    return { name: plane.name, type, perRow: each === 1 ? 'length' : `(length / ${each})` };
  });
  const high = [...Array(bits === 8 ? 0 : bits - 4).keys()].map(
    (bit) => `const uint high${bit} = row.high[${sum(times('run', bits - 4), String(bit))}];`,
  );
  const bias = hasBias(format);
  const halves = group < 32;
  const { loads, integers } = readsOf(format, simdWidth > 1);
  const scales = halves
    ? [
        `const float scale = ${factor(format, 'scales', '')};`,
        `const float upper_scale = ${factor(format, 'scales', '1')};`,
      ]
    : [`const float scale = ${factor(format, 'scales', '')};`];
  const [lower, upper] = [`${less('lower', zero)} * x[j]`, `${less('upper', zero)} * x[j + 16]`];
  const part = (sums: string, terms: string): string => `${sums}[j % width] += ${terms};`;
  return {
    name,
    doc: docOf(format),
    planes,
    parameters: planes.map((plane) => `device const ${plane.type}* ${plane.name}`).join(', '),
    pointers: planes.map((plane) => `${plane.name} + row * ${plane.perRow}`),
    loads: [
      ...scales,
      ...(bias ? [`const float bias = ${factor(format, 'biases', '')};`] : []),
      ...loads,
      ...high,
    ],
    parts: ['parts', ...(halves ? ['upper_parts'] : []), ...(bias ? ['totals'] : [])],
    steps: [
      ...integers,
      ...(halves
        ? [part('parts', lower), part('upper_parts', upper)]
        : [part('parts', `${lower} + ${upper}`)]),
      ...(bias ? [part('totals', 'x[j] + x[j + 16]')] : []),
    ],
    total: sum(
      'scale * parts[j]',
      halves ? 'upper_scale * upper_parts[j]' : '',
      bias ? 'bias * totals[j]' : '',
    ),
    value:
      bits === 8
        ? 'int(row.quants[run * 32 + j])'
        : integer(format, 'row.quants[run * 16 + j % 16] >> (j / 16 * 4) & 15', 'j'),
    element: sum(
      `${factor(format, 'scales', 'j / 16')} * ${less('q', zero)}`,
      bias ? factor(format, 'biases', '') : '',
    ),
    high,
    runs: split ? [writeRun(format)] : [],
    tiled: tiled ? [{ name, ...writePart(format) }] : [],
  };
}

/** What one of two threads keeps of a run in registers, and how it becomes halves. */
function writePart(format: PackedFormat): Readonly<Record<string, unknown>> {
  const { bits, group, scale, zero } = format;
  const eight = bits === 8;
  const range = 2 ** bits;
  const furtherBits = [...Array(eight ? 0 : bits - 4).keys()];
  const factors = factorsOf(format, 'own');
  // Integers of eight bits are signed; the same with the sign bit flipped is 128 more.
  const middle = eight ? 128 : zero;
  // The product with a half is exact, and so is what is taken from it.
  const exact = scale === 'half';
  const number = (quant: string): string => `as_type<float>(${quant} << ${23 - bits} | 0x3f800000u)`;
  const value = (quant: string, own: string): string =>
    exact
      ? `metal::fma(${number(quant)}, ${own}, less)`
      : `(${number(quant)} - ${floatLiteral(1 + middle / range)}) * ${own}${factors.bias === undefined ? '' : ' + bias'}`;
  const further = (from: string): string =>
    furtherBits.map((bit) => ` | (own.high[${bit}] >> (${from}) & 1) << ${4 + bit}`).join('');
  return {
    range,
    members: [
      { type: 'uint2', name: 'quants', array: eight ? '[2]' : '' },
      ...(furtherBits.length > 0 ? [{ type: 'uint', name: 'high', array: `[${furtherBits.length}]` }] : []),
      ...factors.members.map(({ type, name }) => ({ type, name, array: '' })),
    ],
    loads: [
      eight ? '{quants[run * 4 + part], quants[run * 4 + part + 2]}' : 'quants[run * 2 + part]',
      ...(furtherBits.length > 0
        ? [
            `{${furtherBits.map((bit) => `row.high[${sum(times('run', bits - 4), String(bit))}]`).join(', ')}}`,
          ]
        : []),
      ...factors.members.map(({ load }) => load),
    ].join(', '),
    factors: [
      ...factors.scales.map(
        (scale, i) =>
          `const float ${i === 0 ? 'scale' : 'upper_scale'} = ${floatLiteral(range)} * ${inParentheses(scale)};`,
      ),
      ...(exact ? [`const float less = ${floatLiteral(-(range + middle))} * float(own.scale);`] : []),
      ...(factors.bias === undefined ? [] : [`const float bias = ${factors.bias};`]),
    ],
    quants: eight
      ? [
          'const uint at = (i + j) % 4 * 8;',
          'const uint low = ((i < 4 ? own.quants[0].x : own.quants[0].y) >> at & 255) ^ 128;',
          'const uint high = ((i < 4 ? own.quants[1].x : own.quants[1].y) >> at & 255) ^ 128;',
        ]
      : [
          'const uint byte = (i < 4 ? own.quants.x : own.quants.y) >> ((i + j) % 4 * 8);',
          `const uint low = (byte & 15)${further('part * 8 + i + j')};`,
          `const uint high = (byte >> 4 & 15)${further('part * 8 + i + j + 16')};`,
        ],
    lower: value('low', 'scale'),
    upper: value('high', group < 32 ? 'upper_scale' : 'scale'),
  };
}

/** What of a row a lane keeps in registers, and how it is multiplied. */
function writeRun(format: PackedFormat): Readonly<Record<string, unknown>> {
  const { bits, zero } = format;
  const eight = bits === 8;
  const factors = factorsOf(format, 'run');
  const wide = bits === 6 ? 'uint2' : 'uint';
  const high = { type: wide, name: 'high', array: '', load: `((device const ${wide}*)row.high)[run]` };
  const members = [
    eight
      ? { type: 'uint4', name: 'quants', array: '[2]', load: '{quants[2 * run], quants[2 * run + 1]}' }
      : { type: 'uint4', name: 'quants', array: '', load: 'quants[run]' },
    ...(bits === 5 || bits === 6 ? [high] : []),
    ...factors.members.map((member) => ({ ...member, array: '' })),
  ];
  // A quant becomes the fraction of 1.0f from this bit on, that of its byte's other half from four bits further.
  const from = 19 - bits;
  const mask = (count: number, at: number): string => `0x${((2 ** count - 1) * 2 ** at).toString(16)}u`;
  const shifted = (at: number): string => (at < 0 ? `>> ${-at}` : `<< ${at}`);
  const half = (at: number, sumName: string, ofX: string) => {
    const range = 2 ** (23 - at);
    const further = bits > 4 ? ` | (further & ${mask(bits - 4, at + 4)})` : '';
    return {
      range,
      number: `(bytes[j] & ${mask(4, at)})${further} | one`,
      sum: `${floatLiteral(range)} * ${sumName}`,
      less: `${floatLiteral(range + zero)} * ${ofX}`,
    };
  };
  const lower = half(from, 'low', 'lower');
  const upper = half(from + 4, 'high', 'upper');
  const [scale, upperScale] = factors.scales;
  const total = eight
    ? `${scale} * sum`
    : upperScale === undefined
      ? `${scale} * (${lower.sum} + ${upper.sum} - (${lower.less} + ${upper.less}))`
      : `${scale} * (${lower.sum} - ${lower.less}) + ${upperScale} * (${upper.sum} - ${upper.less})`;
  return {
    members,
    loads: members.map(({ load }) => load).join(', '),
    eight: eight ? [{}] : [],
    four: eight
      ? []
      : [
          {
            lower,
            upper,
            bytes: [0, 1, 2, 3].map((byte) => `words[w] ${shifted(from - 8 * byte)}`).join(', '),
            five: bits === 5 ? [{ at: from + 4 }] : [],
            six: bits === 6 ? [{ at: from + 4 }] : [],
          },
        ],
    total: sum(total, factors.bias === undefined ? '' : `${factors.bias} * (lower + upper)`),
  };
}

/** What a thread keeps of a run's scales and bias in registers, and their values, the run being called `own`. */
function factorsOf(format: PackedFormat, own: string) {
  const { group } = format;
  const [bias, blocks] = [hasBias(format), hasBlocks(format)];
  const scaleNames = group < 32 ? ['scale', 'upper_scale'] : ['scale'];
  const at = (i: number): string =>
    group < 32 ? sum('run * 2', String(i)) : group > 32 ? `run / ${group / 32}` : 'run';
  const { type } = planeType(format, 'scales');
  const value = (name: string, block: string): string =>
    blocks ? `float(${own}.block_${block}) * float(${own}.${name})` : `float(${own}.${name})`;
  return {
    members: [
      ...scaleNames.map((name, i) => ({ type, name, load: `row.scales[${at(i)}]` })),
      ...(bias ? [{ type, name: 'bias', load: `row.biases[${at(0)}]` }] : []),
      ...(blocks ? [{ type: 'half', name: 'block_scale', load: 'row.block_scales[run / 8]' }] : []),
      ...(blocks && bias ? [{ type: 'half', name: 'block_bias', load: 'row.block_biases[run / 8]' }] : []),
    ],
    scales: scaleNames.map((name) => value(name, 'scale')),
    bias: bias ? (blocks ? `-(${value('bias', 'bias')})` : value('bias', 'bias')) : undefined,
  };
}
