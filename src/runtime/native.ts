/** The whole native addon as one TypeScript type. `native/addon.cc` implements exactly this. */

/** One argument of a kernel, in the order of the kernel's parameter list. */
export interface NativeArgument {
  /** `buffer`, `threadgroup` or the name of an MSL thread-position attribute. */
  readonly kind: string;
  /** `[[buffer(index)]]` or `[[threadgroup(index)]]`; 0 for thread positions. */
  readonly index: number;
  /** Bytes of a `threadgroup` argument; the least bytes bound to a `buffer`; 0 otherwise. */
  readonly bytes: number;
  /** What the sanitizer's findings call it; by default its kind and index. */
  readonly name?: string;
}

export interface NativeKernel {
  /** Its host name: `[[host_name("...")]]` where the text has one, else the name of its function. */
  readonly name: string;
  /**
   * Threads of a threadgroup, at most 1024 in all. With simdgroups of one lane, the threads run one after another: a
   * kernel of several threads cannot have barriers there.
   */
  readonly threads: readonly [number, number, number];
  readonly arguments: readonly NativeArgument[];
  /**
   * Whether threadgroups must run in order, by default false: for kernels with atomics, whose results depend on the
   * order. They run on one OS thread.
   */
  readonly sequential?: boolean;
}

/** One contiguous device allocation. With `file`, its content is that file, which no kernel may write. */
export interface NativeArena {
  readonly name: string;
  readonly bytes: number;
  readonly file?: string;
}

export interface NativeBinding {
  /** Index into `ProgramSpec.arenas`. */
  readonly arena: number;
  /** Bytes from the arena's start. */
  readonly offset: number;
  readonly bytes: number;
}

export interface NativeDispatch {
  /** Index into `ProgramSpec.kernels`. */
  readonly kernel: number;
  /** Threadgroups per grid. */
  readonly grid: readonly [number, number, number];
  /**
   * Threads per grid, when the last threadgroups of an axis are smaller: then `grid` is this divided by the threads of
   * a threadgroup, rounded up. By default all threadgroups are whole.
   */
  readonly gridThreads?: readonly [number, number, number];
  /** One per `buffer` argument of the kernel, in the order of the kernel's parameter list. */
  readonly bindings: readonly NativeBinding[];
  /** Whether earlier dispatches of the entry must have finished before this one starts. */
  readonly barrier: boolean;
}

export interface NativeEntry {
  readonly name: string;
  readonly dispatches: readonly NativeDispatch[];
}

export interface ProgramSpec {
  /** The text of kernels.metal. */
  readonly source: string;
  /** The path that diagnostics name for `source`. */
  readonly sourceName: string;
  /** Lanes of a simdgroup the text was written for. */
  readonly simdWidth: 1 | 32;
  readonly kernels: readonly NativeKernel[];
  readonly arenas: readonly NativeArena[];
  readonly entries: readonly NativeEntry[];
  /** Folder with the headers that give MSL its meaning off Apple (`native/msl`). */
  readonly headers: string;
  /** Folder for compiled kernels; created when absent. */
  readonly cache: string;
  /** C++ compiler to use; when absent, the first suitable clang on PATH. */
  readonly clang?: string;
  /**
   * For tests: a seed (uint32). With it, threadgroups of dispatches that no barrier separates run interleaved in a
   * random order, and so do the lanes and simdgroups of a threadgroup where Metal leaves their order open. The order
   * follows from the seed and the number of the submission. Results of a correct program do not depend on it.
   */
  readonly shuffle?: number;
  /** Values of the text's `[[function_constant(index)]]`; each that is not asked about needs one. */
  readonly functionConstants?: readonly { readonly index: number; readonly value: number | boolean }[];
  /**
   * OS threads that share the threadgroups of a large dispatch, by default 1. Results are the same for any number. A
   * shuffled or sanitized program runs on one.
   */
  readonly threads?: number;
  /**
   * Whether to check every access of a kernel, by default false. A submission rejects with UPGC_SANITIZER, and says what
   * was found, when a kernel reads or writes outside its buffers and threadgroup memory, when threads or threadgroups
   * access the same byte with nothing to order them and one writes, or when threadgroup memory is read before it is
   * written. Sanitized programs run one at a time.
   */
  readonly sanitize?: boolean;
}

/** A parameter of a kernel as the text declares it. */
export interface InspectedParameter {
  readonly name: string;
  /** `buffer`, `threadgroup` or the name of an MSL thread-position attribute. */
  readonly kind: string;
  /** `[[buffer(index)]]` or `[[threadgroup(index)]]`, also where Metal assigns it; 0 for thread positions. */
  readonly index: number;
  /** What a pointer or reference points to, or the type of a value, e.g. `float`, `uint3`, `Step`. */
  readonly type: string;
  /** Of a pointer or reference: `device`, `constant` or `threadgroup`. */
  readonly addressSpace?: string;
  /** `write` for memory that is not const. */
  readonly access: 'read' | 'write';
  readonly line: number;
  readonly column: number;
}

export interface InspectedKernel {
  /** Its host name. */
  readonly name: string;
  /** The function or instantiation, e.g. `softmax<float, 4>`. */
  readonly function: string;
  readonly parameters: readonly InspectedParameter[];
  /** `[[max_total_threads_per_threadgroup(n)]]` */
  readonly maxTotalThreads?: number;
}

/** What a Metal text offers to its host. */
export interface InspectedText {
  readonly kernels: readonly InspectedKernel[];
  readonly functionConstants: readonly {
    readonly name: string;
    readonly index: number;
    readonly type: string;
  }[];
  /** Whether any function of the text uses atomics. */
  readonly usesAtomics: boolean;
}

/** Something that Apple's compiler or run time would refuse, or a trap. Lines and columns count from 1. */
export interface Finding {
  /** The id of one of the `checkRules()`. */
  readonly rule: string;
  readonly severity: 'error' | 'warning';
  readonly message: string;
  /** What to do about it. */
  readonly fix: string;
  readonly line: number;
  readonly column: number;
  /** Characters from `column` on. */
  readonly length: number;
}

export interface CheckRule {
  readonly id: string;
  readonly severity: 'error' | 'warning';
  /** What must hold. */
  readonly doc: string;
}

/** As in `ProgramSpec`; the compiler runs only for text with directives of its own. */
export type InspectOptions = Pick<ProgramSpec, 'headers' | 'cache' | 'clang'>;

export interface NativeStats {
  /** Device allocations since the program was created, creation included. */
  readonly allocations: number;
  readonly allocatedBytes: number;
  /** Calls of `submit` that the device ran. */
  readonly submissions: number;
  /** Dispatches of all steps of all submissions. */
  readonly dispatches: number;
}

/**
 * A compiled program on a device. All methods throw an Error with a `code` (see NativeErrorCode) on misuse:
 * nothing here crashes the process.
 */
export interface NativeProgram {
  /** Copies bytes into an arena. */
  write(arena: number, offset: number, data: Uint8Array): void;
  /** Copies bytes out of an arena. */
  read(arena: number, offset: number, into: Uint8Array): void;
  /** Fills an arena with zero bytes. */
  clear(arena: number): void;
  /** Allocates an arena that is no file anew, zero-filled, and frees what was there: to measure what that costs. */
  reallocate(arena: number): void;
  /**
   * Runs one entry as one submission, off the JavaScript thread: `steps` times (1, the default, to 2^20), each time after
   * the last one has finished. Nothing but what the kernels write changes between steps. One submission at a time.
   */
  submit(entry: number, steps?: number): Promise<void>;
  stats(): NativeStats;
  /** Frees everything; later calls throw `UPGC_CLOSED`. Waits for nothing: throws `UPGC_BUSY` during a submission. */
  close(): void;
}

export type NativeErrorCode =
  | 'UPGC_UNKNOWN_DEVICE'
  /** No suitable compiler for the CPU device. */
  | 'UPGC_NO_CLANG'
  /** No NVIDIA driver, GPU or NVRTC for the device cuda; the message says which. */
  | 'UPGC_NO_CUDA'
  /** The kernel text did not compile; the message holds the compiler's output. */
  | 'UPGC_COMPILE'
  /** A kernel, size or offset of the ProgramSpec is out of range. */
  | 'UPGC_BAD_PLAN'
  /** A file or the cache folder could not be read, mapped or written. */
  | 'UPGC_IO'
  /** A kernel misbehaved, e.g. a barrier that not all threads reached. On a GPU, the program must be closed then. */
  | 'UPGC_KERNEL'
  /** The sanitizer has found what no kernel may do; the message lists it. */
  | 'UPGC_SANITIZER'
  | 'UPGC_BUSY'
  | 'UPGC_CLOSED'
  /** A packing was aborted. */
  | 'UPGC_ABORTED'
  /** A weight that is to be quantised has values that are infinite or no numbers. */
  | 'UPGC_NOT_FINITE';

/** Where the values of a weight come from: a tensor of a file, plain elements, or out of nothing. */
export type NativePackSource =
  | {
      /** Index into `PackSpec.files`. */
      readonly file: number;
      readonly offset: number;
      /** `F32`, `F16`, `BF16`, a type of GGML's blocks, `Q4_0` to `Q6_K`, or of indices `U16`; row-major. */
      readonly dtype: string;
      /** Rows of a head whose halves the file interleaves; by default rows are in order. */
      readonly headRows?: number;
      /** Whether the file holds [columns, rows]. */
      readonly transposed?: boolean;
    }
  | { readonly data: Uint8Array; readonly dtype: 'F32' | 'F16' | 'BF16' }
  | {
      /** About normal; the mean of packed formats is 0. */
      readonly random: { readonly seed: number; readonly mean: number; readonly deviation: number };
    };

/** A matrix of weights.bin; tensors of other ranks are a single row. */
export interface NativePackWeight {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly source: NativePackSource;
  /** `f32`, `f16`, `bf16`, a format of src/ir/packed.ts, or `u16` for indices of a pruned matrix. */
  readonly format: string;
  /** 1 but for packed formats: a power of two up to 64. */
  readonly tileRows: number;
  /** Where each plane starts in the file, or the only part of a plain weight. */
  readonly offsets: readonly number[];
  /** How integers are chosen where there is a choice: for the extremes of a group, or for the least squared error. */
  readonly method: 'nearest' | 'search';
  /** How much the square of an error counts in each column of the source; by default all alike. */
  readonly importance?: Float32Array;
  /**
   * When this is a part of what is left of the source [rows, columns]: in every `blockRows` rows, the blocks of
   * `blockColumns` columns whose squares add up to most. With `indices` which blocks those are, else their values.
   */
  readonly pruning?: {
    readonly rows: number;
    readonly columns: number;
    readonly blockRows: number;
    readonly blockColumns: number;
    readonly indices: boolean;
  };
}

export interface PackSpec {
  /** The file to appear, of `bytes` bytes. */
  readonly file: string;
  /** What it is called until it is complete. A file of this name that has the same fingerprint is continued. */
  readonly partial: string;
  readonly bytes: number;
  /** 64 characters that differ when anything that determines the contents differs. */
  readonly fingerprint: string;
  readonly files: readonly string[];
  readonly weights: readonly NativePackWeight[];
  /** By default as many as there are processors. The file is the same for any number. */
  readonly threads?: number;
}

export interface PackStats {
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** What an earlier process had written. */
  readonly resumedBytes: number;
  /** Memory that the threads took. */
  readonly bufferBytes: number;
  readonly threads: number;
  readonly seconds: number;
}

/** What an error with the code UPGC_IO of `packWeights` also has. */
export interface PackIoError {
  readonly path: string;
  readonly writing: boolean;
  /** That of the operating system, or 0 when a file ended at `position`, `missing` bytes early. */
  readonly errno: number;
  readonly position: number;
  readonly missing: number;
  /** The name of the weight that was being read, or ''. */
  readonly weight: string;
}

/** A packing under way. */
export interface NativePacking {
  readonly done: Promise<PackStats>;
  /** Has `done` reject with UPGC_ABORTED soon, unless it is too late. What was written can be continued. */
  abort(): void;
}

export interface NativeAddon {
  /** Devices of this build that this machine has, best first. */
  devices(): string[];
  /** Checks the spec, compiles the kernels (or finds them in the cache), allocates the arenas. */
  createProgram(device: string, spec: ProgramSpec): Promise<NativeProgram>;
  /** The CUDA C++ that the device `cuda` compiles for this spec; needs no GPU. */
  cudaSource(spec: ProgramSpec): Promise<string>;
  /**
   * Reads Metal compute text, which may be anybody's: the kernels and what they take. Fails with UPGC_COMPILE at text
   * that is not Metal, or that kernels of this device may not contain; errors of types show in `createProgram` only.
   */
  inspectKernels(source: string, sourceName: string, options: InspectOptions): Promise<InspectedText>;
  /** What Apple's compiler would refuse in Metal compute text, by line. Always runs the compiler. */
  checkKernels(source: string, sourceName: string, options: InspectOptions): Promise<Finding[]>;
  checkRules(): CheckRule[];
  /**
   * Writes a file of weights off the JavaScript thread.
   * @param onProgress bytes in the file and of all: once at first, then ten times a second at most; never decreasing
   */
  packWeights(spec: PackSpec, onProgress: (bytesDone: number, bytesTotal: number) => void): NativePacking;
}
