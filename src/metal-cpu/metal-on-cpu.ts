import { checkName, CompilerBug, UserError } from '../diagnostic.js';
import { readText, shown } from '../input-file.js';
import { cacheFolder, fromNative, loadAddon, mslHeaders } from '../runtime/addon.js';
import type {
  InspectedKernel,
  InspectedText,
  NativeArgument,
  NativeProgram,
  ProgramSpec,
} from '../runtime/native.js';
import { bindingsOf, threadgroupBytes, type Bindings } from './arguments.js';
import type { BufferValue } from './buffer-value.js';
import { checkWhole, sizeOf, type Size } from './size.js';

/** The greatest number of threads of a threadgroup, as on Apple GPUs. */
const maxThreads = 1024;

/** The most that the device takes. */
const maxOsThreads = 1024;

export interface LibraryOptions {
  /** The path that errors name; `kernels.metal` when absent. */
  readonly name?: string;
  /** Values of function constants, by name or index. */
  readonly constants?: Readonly<Record<string, number | boolean>>;
  /**
   * Lanes of a simdgroup: 32 (the default), as on Apple GPUs; or 1, where a simdgroup is one thread and kernels written for
   * any width become plain vectorised loops.
   */
  readonly simdWidth?: 1 | 32;
}

export interface Launch {
  /** Threads of the grid, as `dispatchThreads` takes them: threadgroups at its edges are smaller. */
  readonly grid: Size;
  /** Threads of a threadgroup, at most 1024 in all. */
  readonly threads: Size;
  /** What each buffer parameter points to, by its name or `[[buffer(index)]]`. */
  readonly buffers: Readonly<Record<string, BufferValue>>;
  /** Bytes of each `threadgroup` parameter, by its name or `[[threadgroup(index)]]`. */
  readonly threadgroup?: Readonly<Record<string, number>>;
  /** Reports accesses out of bounds, data races and reads of uninitialised threadgroup memory as an error. */
  readonly sanitize?: boolean;
  /** A seed: threads, simdgroups and threadgroups run in a random order, where Metal leaves it open. */
  readonly shuffle?: number;
  /** Threads of the operating system that share the threadgroups; 1 when absent. Results do not depend on it. */
  readonly osThreads?: number;
  /** How often the grid runs, one time after the other; 1 when absent. */
  readonly repeat?: number;
}

export interface RunResult {
  /** Of one run of the grid, the least over the repetitions, without compiling or copying. */
  readonly seconds: number;
}

/** Runs of this many seconds together are timed as one: what is left is the time of handing them to a thread. */
const timedTogether = 0.002;

/** Runs the one entry of a program `repeat` times; the least seconds that one time took. */
async function leastTime(program: NativeProgram, repeat: number): Promise<number> {
  let least = Infinity;
  for (let left = repeat, together = 1; left > 0;) {
    together = Math.min(together, left);
    left -= together;
    const started = performance.now();
    await program.submit(0, together);
    least = Math.min(least, (performance.now() - started) / 1000 / together);
    together = Math.max(1, Math.ceil(timedTogether / least));
  }
  return least;
}

type FunctionConstants = NonNullable<ProgramSpec['functionConstants']>;

/** The values of function constants, by index. */
function constantsOf(text: InspectedText, options: LibraryOptions, file: string): FunctionConstants {
  const indices = new Set<number>();
  return Object.entries(options.constants ?? {}).map(([key, value]) => {
    const found = text.functionConstants.find(({ name, index }) => key === name || key === String(index));
    const known = text.functionConstants.map(({ name, index }) => `${name} [[function_constant(${index})]]`);
    const notes = [`function constants: ${known.length === 0 ? 'none' : known.join(', ')}`];
    if (!found) throw new UserError(`${shown(file)} has no function constant '${key}'`, { notes });
    if (indices.has(found.index))
      throw new UserError(`function constant ${found.name} is given twice`, { notes });
    indices.add(found.index);
    return { index: found.index, value };
  });
}

/**
 * A Metal text whose compute kernels run on the CPU, for tests of kernels where there is no Apple GPU. What it does not
 * tell is how fast they are on one.
 *
 *     const library = await MetalOnCpu.open('softmax.metal');
 *     const y = new Float32Array(x.length);
 *     await library.run('softmax', { grid: [32, rows], threads: 32, buffers: { x, y, width: 100 } });
 *
 * Compiled kernels are kept in the cache folder, so only the first run of a kernel takes the compiler's time.
 */
export class MetalOnCpu {
  private constructor(
    private readonly text: string,
    private readonly name: string,
    private readonly inspected: InspectedText,
    private readonly constants: FunctionConstants,
    private readonly simdWidth: 1 | 32,
  ) {}

  /** @throws {UserError} when the file cannot be read, or as `library` */
  static async open(file: string, options: Omit<LibraryOptions, 'name'> = {}): Promise<MetalOnCpu> {
    return MetalOnCpu.library(readText(file), { ...options, name: shown(file) });
  }

  /** @throws {UserError} when the text is not a Metal text, or a constant is none of its function constants */
  static async library(text: string, options: LibraryOptions = {}): Promise<MetalOnCpu> {
    const { name = 'kernels.metal' } = options;
    try {
      const inspected = await loadAddon().inspectKernels(text, name, {
        headers: mslHeaders,
        cache: cacheFolder(),
      });
      return new MetalOnCpu(
        text,
        name,
        inspected,
        constantsOf(inspected, options, name),
        options.simdWidth ?? 32,
      );
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** The kernels of the text, with their parameters. */
  get kernels(): readonly InspectedKernel[] {
    return this.inspected.kernels;
  }

  /**
   * Runs a kernel over a grid. Arrays bound to parameters that are not const hold its results afterwards.
   * @throws {UserError} when there is no such kernel, an argument is missing or of the wrong size, the text does not
   * compile, or (with `sanitize`, or at a barrier that not all threads reach) the kernel is at fault
   */
  async run(kernel: string, launch: Launch): Promise<RunResult> {
    const found = this.kernel(kernel);
    const { repeat = 1, osThreads = 1, shuffle = 0 } = launch;
    checkWhole('repeat', repeat, 1, Number.MAX_SAFE_INTEGER);
    checkWhole('osThreads', osThreads, 1, maxOsThreads);
    checkWhole('shuffle', shuffle, 0, 2 ** 32 - 1);
    const buffers = bindingsOf(found, launch.buffers);
    const spec = this.spec(found, launch, buffers);
    try {
      const program = await loadAddon().createProgram('cpu', spec);
      try {
        buffers.arenas.forEach(({ bytes }, arena) => program.write(arena, 0, bytes));
        const seconds = await leastTime(program, repeat);
        buffers.arenas.forEach(({ bytes, written }, arena) => {
          if (written) program.read(arena, 0, bytes);
        });
        return { seconds };
      } finally {
        program.close();
      }
    } catch (error) {
      throw fromNative(error);
    }
  }

  private kernel(name: string): InspectedKernel {
    const names = this.kernels.map((kernel) => kernel.name);
    checkName('kernel', `the kernels of ${shown(this.name)}`, name, names);
    const found = this.kernels.find((kernel) => kernel.name === name);
    if (!found) throw new CompilerBug(`${name} is listed and not found`);
    return found;
  }

  private spec(kernel: InspectedKernel, launch: Launch, { arenas, bindings }: Bindings): ProgramSpec {
    const { sanitize = false, shuffle, osThreads = 1 } = launch;
    const gridThreads = sizeOf(launch.grid, 'grid');
    const threads = sizeOf(launch.threads, 'threads');
    const most = Math.min(maxThreads, kernel.maxTotalThreads ?? maxThreads);
    const total = threads[0] * threads[1] * threads[2];
    if (total > most)
      throw new UserError(`a threadgroup of kernel ${kernel.name} has at most ${most} threads, not ${total}`);
    const sizes = threadgroupBytes(kernel, launch.threadgroup ?? {});
    const bytesOfBuffer = new Map(bindings.map(({ parameter, bytes }) => [parameter.index, bytes]));
    const kernelArguments = kernel.parameters.map(({ name, kind, index }): NativeArgument => {
      if (kind === 'buffer') return { name, kind, index, bytes: bytesOfBuffer.get(index) ?? 0 };
      if (kind === 'threadgroup') return { name, kind, index, bytes: sizes.get(index) ?? 0 };
      return { kind, index: 0, bytes: 0 };
    });
    const grid = gridThreads.map((count, axis) => Math.ceil(count / (threads[axis] ?? 1)));
    const [x = 1, y = 1, z = 1] = grid;
    return {
      source: this.text,
      sourceName: this.name,
      simdWidth: this.simdWidth,
      functionConstants: this.constants,
      kernels: [
        // A host name need not be an identifier; the device then finds the kernel by its function.
        {
          name: /^\w+$/.test(kernel.name) ? kernel.name : kernel.function,
          threads,
          arguments: kernelArguments,
          sequential: this.inspected.usesAtomics,
        },
      ],
      arenas: arenas.map(({ name, bytes }) => ({ name, bytes: bytes.byteLength })),
      entries: [
        {
          name: kernel.name,
          dispatches: [
            {
              kernel: 0,
              grid: [x, y, z],
              gridThreads,
              bindings: bindings.map(({ arena, bytes }) => ({ arena, offset: 0, bytes })),
              barrier: true,
            },
          ],
        },
      ],
      headers: mslHeaders,
      cache: cacheFolder(),
      threads: osThreads,
      sanitize,
      ...(shuffle === undefined ? {} : { shuffle }),
    };
  }
}
