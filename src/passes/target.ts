import type { CacheDType } from './insert-kv-cache.js';

/** What a build is compiled for: the constants that the templates take. Any device can run any build. */
export interface Target {
  readonly name: 'metal' | 'cuda' | 'cpu';
  /** Lanes of a simdgroup that the kernels stride by. */
  readonly simdWidth: 1 | 32;
  /** Most threads of a threadgroup in kernels that work on a whole row. */
  readonly rowThreads: number;
  /** Most threads of the threadgroup that alone scans a vocabulary. */
  readonly scanThreads: number;
  /** Every buffer starts at a multiple of this many bytes. */
  readonly alignment: number;
  /** Rows of packed matrices that are interleaved; the templates read rows one by one so far. */
  readonly tileRows: 1;
  readonly matvec: {
    /** Rows of the matrix a simdgroup works on at a time. */
    readonly rows: number;
    readonly simdgroups: number;
  };
  /** The same for products that prepare x first (a norm): more rows in a threadgroup, so that x is prepared less often. */
  readonly prepared: {
    readonly simdgroups: number;
    /** Threadgroups take several blocks of rows each where there would be more than this. */
    readonly mostGroups: number;
  };
  /** How the products of one token are split, where that is faster than a simdgroup for every few rows. */
  readonly split?: SplitMachine;
  /** How the products of chunks of tokens are tiled, where simdgroups multiply matrices. */
  readonly matmul?: MatmulMachine;
  readonly attention: {
    /** Simdgroups of a threadgroup, which share its positions out among them. */
    readonly simdgroups: number;
    /** Of chunks of tokens, over caches of these types: most simdgroups of a threadgroup, each with 8 tokens of a head. */
    readonly flash?: { readonly simdgroups: number; readonly types: readonly CacheDType[] };
  };
  /** How keys and values are cached where a compilation does not say. */
  readonly kv: CacheDType;
  /** Contiguous elements a lane takes at a time, each with a partial sum of its own; a power of two. */
  readonly vector: number;
  /** Elements that one threadgroup of an elementwise kernel computes. */
  readonly block: number;
  /** Most bytes of threadgroup memory. */
  readonly threadgroupBytes: number;
  readonly cost: MachineCost;
}

/** A machine whose every core is filled by threadgroups that stay until all rows are done. */
export interface SplitMachine {
  readonly cores: number;
  /** Threads of a core that can have as many registers as the kernels take. */
  readonly threads: number;
  /** Bytes of weights that a lane has on their way at a time. */
  readonly rowBytes: number;
}

/** The products that a threadgroup computes of a chunk: rows of a matrix times tokens. */
export interface MatmulMachine {
  readonly rows: number;
  readonly tokens: number;
  /** Rows of a tile that a simdgroup multiplies. */
  readonly simdgroupRows: number;
}

/** What borders are decided by: estimates of a typical machine of the target, good to a factor of two. */
export interface MachineCost {
  /** Time that one more dependent dispatch takes, in µs. */
  readonly dispatch: number;
  /** Threadgroups that run at the same time. */
  readonly threadgroups: number;
  /** Floating-point operations that one threadgroup does in a µs. */
  readonly flops: number;
  /** Bytes of activations that are written or read in a µs, by all threadgroups together. */
  readonly bytes: number;
}

export const targets = {
  metal: {
    name: 'metal',
    simdWidth: 32,
    rowThreads: 256,
    scanThreads: 1024,
    alignment: 256,
    tileRows: 1,
    matvec: { rows: 4, simdgroups: 2 },
    prepared: { simdgroups: 8, mostGroups: 512 },
    matmul: { rows: 64, tokens: 32, simdgroupRows: 32 },
    attention: { simdgroups: 4, flash: { simdgroups: 8, types: ['f32', 'f16'] } },
    kv: 'f32',
    vector: 4,
    block: 1024,
    threadgroupBytes: 32768,
    // An M4 Max: a dependent dispatch costs 1.3 to 5.2 µs; 40 cores with 8 threadgroups of 256 threads; 16 Tflop/s; 546 GB/s.
    cost: { dispatch: 2, threadgroups: 320, flops: 50_000, bytes: 500_000 },
  },
  cuda: {
    name: 'cuda',
    simdWidth: 32,
    rowThreads: 256,
    scanThreads: 1024,
    alignment: 256,
    tileRows: 1,
    matvec: { rows: 4, simdgroups: 2 },
    prepared: { simdgroups: 8, mostGroups: 512 },
    // Float matrices are multiplied by shuffles there, which takes as long as scanning the cache for each token.
    attention: { simdgroups: 4, flash: { simdgroups: 8, types: ['f16'] } },
    kv: 'f32',
    matmul: { rows: 128, tokens: 64, simdgroupRows: 32 },
    split: { cores: 132, threads: 640, rowBytes: 64 },
    vector: 4,
    block: 1024,
    threadgroupBytes: 32768,
    // An H100: 1 µs between the kernels of a graph; 132 multiprocessors with 8 threadgroups of 256 threads; 60 Tflop/s; 3.2 TB/s.
    cost: { dispatch: 1, threadgroups: 1056, flops: 57_000, bytes: 3_200_000 },
  },
  cpu: {
    name: 'cpu',
    simdWidth: 1,
    rowThreads: 1,
    scanThreads: 1,
    alignment: 64,
    tileRows: 1,
    matvec: { rows: 4, simdgroups: 1 },
    prepared: { simdgroups: 1, mostGroups: 1 },
    attention: { simdgroups: 1 },
    kv: 'f32',
    vector: 16,
    block: 4096,
    threadgroupBytes: 32768,
    // The CPU device runs threadgroups one after the other, on one core with vectors of 16; activations stay in its cache.
    cost: { dispatch: 0.3, threadgroups: 1, flops: 20_000, bytes: 40_000 },
  },
} as const satisfies Record<Target['name'], Target>;

export type TargetName = keyof typeof targets;
