import { Command, InvalidArgumentError } from 'commander';
import { UserError } from '../diagnostic.js';
import { MetalOnCpu, type InspectedKernel } from '../metal-cpu/index.js';
import { wholeNumber } from './arguments.js';
import { elementTypes, readNpy, writeNpy, type ElementType, type NdArray } from './npy.js';

interface KernelFlags {
  readonly kernel?: string;
  readonly grid: readonly [number, number, number];
  readonly threads: readonly [number, number, number];
  readonly buffer: ReadonlyMap<string, NdArray>;
  readonly threadgroup: ReadonlyMap<string, number>;
  readonly constant: ReadonlyMap<string, number | boolean>;
  readonly out: ReadonlyMap<string, string>;
  readonly simdWidth: 1 | 32;
  readonly sanitize?: boolean;
  readonly shuffle?: number;
  readonly osThreads: number;
  readonly repeat: number;
}

export function kernelCommand(): Command {
  return new Command('kernel')
    .description('Work with the kernels of any Metal text')
    .addCommand(
      new Command('run')
        .description('Run a compute kernel on the CPU. Without --out, what it wrote is printed')
        .argument('<file.metal>', 'the text')
        .option('--kernel <name>', 'which kernel (default: the only one)')
        .requiredOption('--grid <x,y,z>', 'threads of the grid; threadgroups at its edges are smaller', size)
        .requiredOption('--threads <x,y,z>', 'threads of a threadgroup', size)
        .option(
          '--buffer <which=what>',
          'by name or index: 0=f32:in.npy (a file), 1=f32[4,8] (zeros), n=u32:5 (numbers)',
          collect(bufferValue),
          new Map<string, NdArray>(),
        )
        .option('--threadgroup <which=bytes>', 'bytes of a threadgroup parameter', collect(Number), new Map())
        .option('--constant <which=value>', 'value of a function constant', collect(constantValue), new Map())
        .option('--out <which=out.npy>', 'where to write a buffer after the run', collect(String), new Map())
        .option('--simd-width <lanes>', 'lanes of a simdgroup: 32, or 1', simdWidth, 32)
        .option('--sanitize', 'report accesses out of bounds, data races and uninitialised reads')
        .option('--shuffle <seed>', 'run threads and threadgroups in a random order', wholeNumber(0))
        .option('--os-threads <n>', 'threads of the operating system', wholeNumber(1), 1)
        .option(
          '--repeat <n>',
          'run this many times and print the time of a run to stderr',
          wholeNumber(1),
          1,
        )
        .action(run),
    );
}

async function run(file: string, flags: KernelFlags): Promise<void> {
  const { grid, threads, buffer, sanitize = false, shuffle, osThreads, repeat } = flags;
  const library = await MetalOnCpu.open(file, {
    constants: Object.fromEntries(flags.constant),
    simdWidth: flags.simdWidth,
  });
  const kernel = chosenKernel(library.kernels, flags.kernel, file);
  for (const which of flags.out.keys())
    if (!buffer.has(which))
      throw new UserError(`--out ${which}: no --buffer is called ${which}`, {
        notes: [`buffers: ${[...buffer.keys()].join(', ')}`],
      });
  const { seconds } = await library.run(kernel.name, {
    grid,
    threads,
    buffers: Object.fromEntries([...buffer].map(([which, { data }]) => [which, data])),
    threadgroup: Object.fromEntries(flags.threadgroup),
    sanitize,
    osThreads,
    repeat,
    ...(shuffle === undefined ? {} : { shuffle }),
  });
  if (repeat > 1) process.stderr.write(`${(1e6 * seconds).toFixed(2)} µs a run, the least of ${repeat}\n`);
  for (const [which, out] of flags.out) {
    const array = buffer.get(which);
    if (array) writeNpy(out, array);
  }
  if (flags.out.size === 0) process.stdout.write(written(kernel, buffer));
}

function chosenKernel(
  kernels: readonly InspectedKernel[],
  name: string | undefined,
  file: string,
): InspectedKernel {
  const named = name === undefined ? kernels : kernels.filter((kernel) => kernel.name === name);
  const [only] = named;
  if (only && named.length === 1) return only;
  const names = kernels.map((kernel) => kernel.name);
  if (name === undefined && names.length > 1)
    throw new UserError(`${file} has ${names.length} kernels`, {
      notes: [`give one: --kernel ${names.join(' | ')}`],
    });
  throw new UserError(name === undefined ? `${file} has no kernel` : `${file} has no kernel '${name}'`, {
    notes: names.length === 0 ? [] : [`kernels: ${names.join(', ')}`],
  });
}

/** The buffers that the kernel may have written, each with its first elements. */
function written(kernel: InspectedKernel, buffers: ReadonlyMap<string, NdArray>): string {
  const most = 16;
  return kernel.parameters
    .filter(({ kind, access }) => kind === 'buffer' && access !== 'read')
    .map(({ name, index }) => {
      const array = buffers.get(name) ?? buffers.get(String(index));
      if (!array) return '';
      const { type, shape, data } = array;
      const values = Array.from(data.slice(0, most), String);
      return `${name} ${type}[${shape.join(', ')}] ${values.join(' ')}${data.length > most ? ' …' : ''}\n`;
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
  return (text: string, before: ReadonlyMap<string, T>): ReadonlyMap<string, T> => {
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
  if (dims !== undefined) {
    const shape = dims.trim() === '' ? [] : dims.split(',').map(Number);
    const count = shape.reduce((product, dim) => product * dim, 1);
    return { type, shape, data: new elementTypes[type].array(count) };
  }
  const list = rest ?? '';
  return /^[-+.\deE,\s]+$/.test(list) ? numbers(type, list) : readNpy(list, type);
}

const isElementType = (type: string): type is ElementType => Object.hasOwn(elementTypes, type);

function numbers(type: ElementType, list: string): NdArray {
  const values = list.split(',').map((value) => value.trim());
  if (type === 'f16' || type === 'bf16')
    throw new InvalidArgumentError(`numbers cannot be given as ${type}: use a file`);
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
