import { packedFormats, planesOf, type PackedFormat, type PackedName, type Plane } from '../ir/packed.js';
import { isSplittable } from '../passes/split.js';
import type { Target } from '../passes/target.js';
import { sum, times } from './expression.js';

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
    runs: split && isSplittable(name) ? [writeRun(format)] : [],
  };
}

/** What of a row a lane keeps in registers, and how it is multiplied. */
function writeRun(format: PackedFormat): Readonly<Record<string, unknown>> {
  const { bits, group, zero } = format;
  const eight = bits === 8;
  const at = group > 32 ? `run / ${group / 32}` : 'run';
  return {
    array: eight ? '[2]' : '',
    members: [
      eight ? '{quants[2 * run], quants[2 * run + 1]}' : 'quants[run]',
      `row.scales[${at}]`,
      ...(hasBias(format) ? [`row.biases[${at}]`] : []),
    ].join(', '),
    bias: hasBias(format) ? [{}] : [],
    four: eight ? [] : [{ low: `${256 + zero}.0f`, high: `${16 + zero}.0f` }],
    eight: eight ? [{}] : [],
  };
}
