/** What a build is compiled for: the constants that the templates take. Any device can run any build. */
export interface Target {
  readonly name: 'metal' | 'cpu';
  /** Lanes of a simdgroup that the kernels stride by. */
  readonly simdWidth: 1 | 32;
  /** Most threads of a threadgroup in kernels that work on a whole row. */
  readonly rowThreads: number;
  /** Every buffer starts at a multiple of this many bytes. */
  readonly alignment: number;
  readonly matvec: {
    /** Rows of the matrix a simdgroup works on at a time. */
    readonly rows: number;
    readonly simdgroups: number;
  };
  /** Contiguous elements a lane takes at a time, each with a partial sum of its own; a power of two. */
  readonly vector: number;
  /** Elements that one threadgroup of an elementwise kernel computes. */
  readonly block: number;
}

export const targets = {
  metal: {
    name: 'metal',
    simdWidth: 32,
    rowThreads: 256,
    alignment: 256,
    matvec: { rows: 4, simdgroups: 2 },
    vector: 4,
    block: 1024,
  },
  cpu: {
    name: 'cpu',
    simdWidth: 1,
    rowThreads: 1,
    alignment: 64,
    matvec: { rows: 4, simdgroups: 1 },
    vector: 16,
    block: 4096,
  },
} as const satisfies Record<Target['name'], Target>;

export type TargetName = keyof typeof targets;
