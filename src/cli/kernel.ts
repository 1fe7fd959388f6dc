import { Command, InvalidArgumentError } from 'commander';
import { checkName, CompilerBug, UserError } from '../diagnostic.js';
import { ioReason, shown } from '../input-file.js';
import { MetalOnCpu, type InspectedKernel, type InspectedParameter } from '../metal-cpu/index.js';
import { wholeNumber } from './arguments.js';
import { elementTypes, readNpy, shownElement, writeNpy, type ElementType, type NdArray } from './npy.js';

interface KernelFlags {
  readonly kernel?: string;
  readonly grid: readonly [number, number, number];
  readonly threads: readonly [number, number, number];
  readonly buffer?: ReadonlyMap<string, NdArray>;
  readonly threadgroup?: ReadonlyMap<string, number>;
  readonly constant?: ReadonlyMap<string, number | boolean>;
  readonly out?: ReadonlyMap<string, string>;
  readonly simdWidth: 1 | 32;
  readonly sanitize?: boolean;
  readonly shuffle?: number;
  readonly osThreads: number;
  readonly repeat: number;
}

export function kernelCommand(): Command {
  return new Command('kernel').description('Work with the kernels of any Metal text').addCommand(
    new Command('run')
      .description('Run a compute kernel on the CPU. Without --out, what it wrote is printed')
      .argument('<file.metal>', 'the text')
      .option('--kernel <name>', 'which kernel (default: the only one)')
      .requiredOption('--grid <x,y,z>', 'threads of the grid; threadgroups at its edges are smaller', size)
      .requiredOption('--threads <x,y,z>', 'threads of a threadgroup', size)
      .option(
        '--buffer <which=what>',
        `by name or index: 0=f32:in.npy (a file), 1=f32[4,8] (zeros), n=u32:5 (numbers); of ${Object.keys(elementTypes).join(', ')}`,
        collect(bufferValue),
      )
      .option('--threadgroup <which=bytes>', 'bytes of a threadgroup parameter', collect(wholeNumber(1)))
      .option('--constant <which=value>', 'value of a function constant', collect(constantValue))
      .option('--out <which=out.npy>', 'where to write a buffer after the run', collect(String))
      .option('--simd-width <lanes>', 'lanes of a simdgroup: 32, or 1', simdWidth, 32)
      .option('--sanitize', 'report accesses out of bounds, data races and uninitialised reads')
      .option('--shuffle <seed>', 'run threads and threadgroups in a random order', wholeNumber(0))
      .option('--os-threads <n>', 'threads of the operating system', wholeNumber(1), 1)
      .option('--repeat <n>', 'run this many times and print the time of a run to stderr', wholeNumber(1), 1)
      .action(run),
  );
}

async function run(file: string, flags: KernelFlags): Promise<void> {
  const {
    grid,
    threads,
    buffer = new Map<string, NdArray>(),
    sanitize = false,
    shuffle,
    osThreads,
    repeat,
  } = flags;
  const library = await MetalOnCpu.open(file, {
    constants: Object.fromEntries(flags.constant ?? []),
    simdWidth: flags.simdWidth,
  });
  const kernel = chosenKernel(library.kernels, flags.kernel, file);
  const outs = [...(flags.out ?? [])].map(([which, out]) => [out, written(kernel, buffer, which)] as const);
  const { seconds } = await library.run(kernel.name, {
    grid,
    threads,
    buffers: Object.fromEntries([...buffer].map(([which, { data }]) => [which, data])),
    threadgroup: Object.fromEntries(flags.threadgroup ?? []),
    sanitize,
    osThreads,
    repeat,
    ...(shuffle === undefined ? {} : { shuffle }),
  });
  if (repeat > 1) process.stderr.write(`${(1e6 * seconds).toFixed(2)} µs a run, the least of ${repeat}\n`);
  for (const [out, array] of outs) writeNpy(out, array);
  if (outs.length === 0) process.stdout.write(writtenValues(kernel, buffer));
}

function chosenKernel(
  kernels: readonly InspectedKernel[],
  name: string | undefined,
  file: string,
): InspectedKernel {
  const names = kernels.map((kernel) => kernel.name);
  if (names.length === 0) throw new UserError(`${shown(file)} has no kernel`);
  if (name !== undefined) checkName('kernel', `the kernels of ${shown(file)}`, name, names);
  else if (names.length > 1)
    throw new UserError(`${shown(file)} has ${names.length} kernels`, {
      notes: [`give one: --kernel ${names.join(' | ')}`],
    });
  const found = kernels.find((kernel) => name === undefined || kernel.name === name);
  if (!found) throw new CompilerBug(`${name ?? 'the only kernel'} is listed and not found`);
  return found;
}

type Buffers = ReadonlyMap<string, NdArray>;

const bufferOf = (buffers: Buffers, { name, index }: InspectedParameter): NdArray | undefined =>
  buffers.get(name) ?? buffers.get(String(index));

/** Parameters that the kernel may write. */
const writtenParameters = (kernel: InspectedKernel): InspectedParameter[] =>
  kernel.parameters.filter(({ kind, access }) => kind === 'buffer' && access !== 'read');

/** The buffer that `--out which=…` names. */
function written(kernel: InspectedKernel, buffers: Buffers, which: string): NdArray {
  const parameters = writtenParameters(kernel);
  const parameter = parameters.find(({ name, index }) => which === name || which === String(index));
  const array = parameter && bufferOf(buffers, parameter);
  if (array) return array;
  const names = parameters.map(({ name, index }) => `${name} [[buffer(${index})]]`).join(', ');
  throw new UserError(
    parameter
      ? `--out ${which}: nothing is given for buffer ${parameter.name}`
      : `--out ${which}: kernel ${kernel.name} writes no buffer '${which}'`,
    { notes: [`it writes: ${names === '' ? 'none' : names}`] },
  );
}

/** The buffers that the kernel may have written, each with its first elements. */
function writtenValues(kernel: InspectedKernel, buffers: Buffers): string {
  const most = 16;
  return writtenParameters(kernel)
    .map((parameter) => {
      const array = bufferOf(buffers, parameter);
      if (!array) return '';
      const { type, shape, data } = array;
      const values = [...data.slice(0, most)].map((value) => shownElement(type, value));
      const rest = data.length > most ? ' …' : '';
      return `${parameter.name} ${type}[${shape.join(', ')}] ${values.join(' ')}${rest}\n`;
    })
    .join('');
}

/** `64`, `64,4` or `64,4,2` */
function size(text: string): readonly [number, number, number] {
  const [x, y = 1, z = 1, ...rest] = text.split(',').map(Number);
  if (x === undefined || rest.length > 0 || ![x, y, z].every((n) => Number.isInteger(n) && n >= 1))
    throw new InvalidArgumentError('expected one to three whole numbers of at least 1, like 1024 or 64,64');
  return [x, y, z];
}

function simdWidth(text: string): 1 | 32 {
  if (text === '1') return 1;
  if (text === '32') return 32;
  throw new InvalidArgumentError('expected 1 or 32');
}

/** Gathers every `which=what` of an option that may be given several times. */
function collect<T>(read: (what: string) => T) {
  return (text: string, before: ReadonlyMap<string, T> = new Map()): ReadonlyMap<string, T> => {
    const at = text.indexOf('=');
    if (at < 1) throw new InvalidArgumentError('expected which=what, by the name or index of a parameter');
    const which = text.slice(0, at);
    if (before.has(which)) throw new InvalidArgumentError(`${which} is given twice`);
    return new Map([...before, [which, read(text.slice(at + 1))]]);
  };
}

function constantValue(text: string): number | boolean {
  if (text === 'true' || text === 'false') return text === 'true';
  const value = Number(text);
  if (text.trim() === '' || Number.isNaN(value))
    throw new InvalidArgumentError('expected a number, true or false');
  return value;
}

/** `f32:in.npy` (a file), `f32[4,8]` (zeros), `u32:1,2,3` (numbers) */
function bufferValue(text: string): NdArray {
  const [, type = '', dims, rest] = /^(\w+)(?:\[([\d,\s]*)\]|:(.+))$/.exec(text) ?? [];
  if (!isElementType(type))
    throw new InvalidArgumentError(
      `expected TYPE:file.npy, TYPE[shape] or TYPE:numbers, where TYPE is one of ${Object.keys(elementTypes).join(', ')}`,
    );
  if (dims !== undefined) return zeros(type, dims);
  const list = rest ?? '';
  return /^[-+.\deE,\s]+$/.test(list) ? numbers(type, list) : readNpy(list, type);
}

const isElementType = (type: string): type is ElementType => Object.hasOwn(elementTypes, type);

function zeros(type: ElementType, dims: string): NdArray {
  const shape = dims.trim() === '' ? [] : dims.split(',').map((dim) => Number(dim.trim()));
  if (!shape.every((dim) => Number.isInteger(dim) && dim >= 1))
    throw new InvalidArgumentError(`expected whole numbers of at least 1 in [${dims}], like [4,8]`);
  const count = shape.reduce((product, dim) => product * dim, 1);
  try {
    return { type, shape, data: new elementTypes[type].array(count) };
  } catch (error) {
    throw new InvalidArgumentError(`cannot make ${count} elements: ${ioReason(error)}`);
  }
}

function numbers(type: ElementType, list: string): NdArray {
  const values = list.split(',').map((value) => value.trim());
  if (type === 'f16' || type === 'bf16')
    throw new InvalidArgumentError(`numbers cannot be given as ${type}: use a .npy file`);
  const data = elementsOf(type, values);
  if (values.some((value, i) => value === '' || (type !== 'f32' && value !== String(data[i]))))
    throw new InvalidArgumentError(`expected numbers that ${type} can hold, not ${list}`);
  return { type, shape: [values.length], data };
}

function elementsOf(type: ElementType, values: readonly string[]): NdArray['data'] {
  if (type !== 'i64' && type !== 'u64') return new elementTypes[type].array(values.map(Number));
  if (!values.every((value) => /^[-+]?\d+$/.test(value)))
    throw new InvalidArgumentError(`expected whole numbers, not ${values.join(', ')}`);
  return new elementTypes[type].array(values.map(BigInt));
}
