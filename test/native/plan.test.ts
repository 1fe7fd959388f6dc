import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type {
  NativeArgument,
  NativeBinding,
  NativeDispatch,
  NativeKernel,
  ProgramSpec,
} from '../../src/runtime/native.js';
import {
  addon,
  buffers,
  defined,
  emptySpec,
  failure,
  position,
  row,
  temporaryFolder,
  threadgroup,
} from './support.js';

const cache = temporaryFolder();

const kernel: NativeKernel = { name: 'rms_norm_64', threads: row(64), arguments: buffers(2) };
const binding: NativeBinding = { arena: 0, offset: 0, bytes: 256 };
const dispatch: NativeDispatch = { kernel: 0, grid: [1, 1, 1], bindings: [binding, binding], barrier: true };
const good = emptySpec(cache, {
  source: `kernel void rms_norm_64(device float* x [[buffer(0)]], device float* y [[buffer(1)]]) {}`,
  kernels: [kernel],
  arenas: [{ name: 'pool', bytes: 2048 }],
  entries: [{ name: 'decode', dispatches: [dispatch] }],
});

const withKernel = (change: object): object => ({ kernels: [{ ...kernel, ...change }] });
const withArguments = (...list: NativeArgument[]): object => withKernel({ arguments: list });
const withDispatch = (change: object): object => ({
  entries: [{ name: 'decode', dispatches: [dispatch, { ...dispatch, ...change }] }],
});
const withBinding = (change: object): object =>
  withDispatch({ bindings: [binding, { ...binding, ...change }] });

describe('a damaged plan', () => {
  const at = 'entry decode, dispatch 1 (rms_norm_64): ';
  const cases: [string, object, string][] = [
    [
      'binding past its arena',
      withBinding({ offset: 1024, bytes: 3072 }),
      `${at}binding 1 ends at byte 4096 of arena pool, which has 2048 bytes`,
    ],
    [
      'binding smaller than the kernel needs',
      withArguments({ kind: 'buffer', index: 0, bytes: 256 }, { kind: 'buffer', index: 1, bytes: 4096 }),
      'entry decode, dispatch 0 (rms_norm_64): binding 1 has 256 bytes; the kernel needs 4096',
    ],
    [
      'binding of 2^53 bytes',
      withBinding({ offset: 2 ** 53 - 16, bytes: 2 ** 53 }),
      `${at}binding 1 ends at byte`,
    ],
    [
      'unaligned binding',
      withBinding({ offset: 8 }),
      `${at}binding 1 starts at byte 8, which is not a multiple of 16`,
    ],
    ['unknown arena', withBinding({ arena: 1 }), `${at}binding 1 names arena 1 of 1`],
    ['missing binding', withDispatch({ bindings: [binding] }), `${at}1 bindings for 2 buffer arguments`],
    ['unknown kernel', withDispatch({ kernel: 1 }), 'entry decode, dispatch 1: kernel 1 of 1 does not exist'],
    [
      'empty grid',
      withDispatch({ grid: [1, 0, 1] }),
      `${at}grid 1 x 0 x 1 is not between 1 and 2147483647 threadgroups`,
    ],
    ['huge grid', withDispatch({ grid: [65536, 65536, 1] }), `${at}grid 65536 x 65536 x 1`],
    ['grid of 2^53', withDispatch({ grid: [2 ** 53, 2 ** 53, 2 ** 53] }), `${at}grid`],
    [
      'wide grid',
      withDispatch({ grid: [2 ** 30, 1, 1] }),
      `${at}1073741824 threadgroups of 64 threads exceed`,
    ],
    ['flat grid', withDispatch({ grid: [1, 1] }), 'spec.entries[0].dispatches[1].grid must have 3 elements'],
    [
      'no threads',
      withKernel({ threads: row(0) }),
      'kernel rms_norm_64 has 0 x 1 x 1 threads; it can have 1 to 1024',
    ],
    [
      'many threads',
      withKernel({ threads: row(1025) }),
      'kernel rms_norm_64 has 1025 x 1 x 1 threads; it can have 1 to 1024',
    ],
    [
      'many threads along two axes',
      withKernel({ threads: [64, 1, 17] }),
      'kernel rms_norm_64 has 64 x 1 x 17 threads; it can have 1 to 1024',
    ],
    [
      'threads that overflow',
      withKernel({ threads: [2 ** 53, 2 ** 53, 2 ** 53] }),
      'kernel rms_norm_64 has 9007199254740992 x',
    ],
    ['flat threads', withKernel({ threads: [64, 1] }), 'spec.kernels[0].threads must have 3 elements'],
    [
      'deep grid',
      { ...withKernel({ threads: [1, 1, 64] }), ...withDispatch({ grid: [1, 1, 2 ** 30] }) },
      `${at}1073741824 threadgroups of 64 threads exceed 2147483647 threads along z`,
    ],
    [
      'more threads than threadgroups hold',
      withDispatch({ gridThreads: [65, 1, 1] }),
      `${at}65 threads along x are not 1 threadgroups of 64`,
    ],
    [
      'fewer threads than threadgroups need',
      withDispatch({ grid: [3, 1, 1], gridThreads: [128, 1, 1] }),
      `${at}128 threads along x are not 3 threadgroups of 64`,
    ],
    ['no threads along y', withDispatch({ gridThreads: [60, 0, 1] }), `${at}0 threads along y are not 1`],
    [
      'flat grid threads',
      withDispatch({ gridThreads: [130] }),
      'spec.entries[0].dispatches[1].gridThreads must have 3 elements',
    ],
    ['simdgroups of 16', { simdWidth: 16 }, 'simdWidth is 16; it can be 1 or 32'],
    [
      'code as a name',
      withKernel({ name: 'x>(); system("true"); //' }),
      'the name of kernel 0 is not an identifier',
    ],
    ['no name', withKernel({ name: '' }), 'the name of kernel 0 is not an identifier'],
    ['a name with a NUL', withKernel({ name: 'a\0b' }), 'the name of kernel 0 is not an identifier'],
    ['two kernels of one name', { kernels: [kernel, kernel] }, 'the plan has two kernels named rms_norm_64'],
    [
      'unknown argument',
      withArguments(position('thread_position_in_galaxy')),
      'spec.kernels[0].arguments[0].kind is not a kind of kernel argument',
    ],
    [
      'same index twice',
      withArguments(...buffers(1), ...buffers(1)),
      'kernel rms_norm_64, argument 1: index 0 is used twice',
    ],
    [
      'index too large',
      withArguments({ kind: 'buffer', index: 31, bytes: 0 }),
      'kernel rms_norm_64, argument 0: index 31 is above 30',
    ],
    [
      'odd threadgroup memory',
      withArguments(threadgroup(0, 8)),
      '8 bytes of threadgroup memory are not a multiple of 16',
    ],
    [
      'much threadgroup memory',
      withArguments(threadgroup(0, 32768), threadgroup(1, 16)),
      'kernel rms_norm_64 needs 32784 bytes of threadgroup memory; there are 32768',
    ],
    [
      '2^53 bytes of threadgroup memory',
      withArguments(threadgroup(0, 2 ** 53)),
      '9007199254740992 bytes of threadgroup memory',
    ],
    [
      'an arena of 2^52 bytes',
      { arenas: [{ name: 'pool', bytes: 2 ** 52 }] },
      'cannot allocate 4503599627370496 bytes for arena pool',
    ],
    [
      'a line break in sourceName',
      { sourceName: 'a\n#include "b"' },
      'sourceName must be a path without control characters',
    ],
    ['a large seed', { shuffle: 2 ** 32 }, 'shuffle is 4294967296; a seed is at most 4294967295'],
    ['a negative seed', { shuffle: -1 }, 'spec.shuffle must be an integer from 0 to 2^53, not -1'],
    ['text as a seed', { shuffle: '1' }, 'spec.shuffle must be an integer from 0 to 2^53, not a string'],
    ['no cache', { cache: '' }, 'cache must be a path'],
    ['nameless arena', { arenas: [{ name: '', bytes: 2048 }] }, 'arena 0 needs a name'],
    [
      'text as a number',
      withKernel({ threads: ['64', 1, 1] }),
      'spec.kernels[0].threads[0] must be an integer from 0 to 2^53, not a string',
    ],
    [
      'a fraction',
      withBinding({ offset: 0.5 }),
      'spec.entries[0].dispatches[1].bindings[1].offset must be an integer from 0 to 2^53, not 0.5',
    ],
    [
      'a negative number',
      withBinding({ bytes: -16 }),
      'bindings[1].bytes must be an integer from 0 to 2^53, not -16',
    ],
    [
      'NaN',
      { arenas: [{ name: 'pool', bytes: NaN }] },
      'spec.arenas[0].bytes must be an integer from 0 to 2^53, not nan',
    ],
    ['a missing list', { kernels: undefined }, 'spec.kernels must be an array, not undefined'],
    ['a number as clang', { clang: 3 }, 'spec.clang must be a string, not 3'],
    ['a number as barrier', withDispatch({ barrier: 1 }), 'dispatches[1].barrier must be a boolean, not 1'],
    [
      'a list as binding',
      withDispatch({ bindings: [[], []] }),
      'bindings[0] must be an object, not an array',
    ],
  ];
  for (const [name, change, message] of cases) {
    it(`is refused: ${name}`, async () => {
      const found = await failure(() => addon.createProgram('cpu', { ...good, ...change }));
      expect(found.message).toContain(message);
      expect(found.code).toBe('UPGC_BAD_PLAN');
    });
  }

  it('can throw from its getters', async () => {
    const spec = {
      ...good,
      get kernels(): never {
        throw new RangeError('from the getter');
      },
    };
    expect(await failure(() => addon.createProgram('cpu', spec))).toMatchObject({
      message: 'from the getter',
    });
  });
});

it('accepts the plan that the damaged ones come from', async () => {
  (await addon.createProgram('cpu', good)).close();
});

it('survives garbage in any place of a spec', async () => {
  const garbage = fc.oneof(
    fc.anything({
      withBigInt: true,
      withDate: true,
      withMap: true,
      withTypedArray: true,
      withSparseArray: true,
    }),
    fc.constantFrom<unknown>(
      Symbol('s'),
      () => 1,
      -0,
      2 ** 31,
      2 ** 32,
      2 ** 53,
      1e308,
      new Array(1e6),
      Object.create(null),
    ),
  );
  // Every path to a property of the spec, e.g. entries.0.dispatches.0.grid.
  const paths: string[][] = [];
  const visit = (value: unknown, at: string[]): void => {
    if (at.length > 0) paths.push(at);
    if (typeof value === 'object' && value !== null)
      for (const [key, inner] of Object.entries(value)) visit(inner, [...at, key]);
  };
  visit(good, []);
  const replaced = (value: unknown, [key, ...rest]: string[], by: unknown): unknown => {
    if (key === undefined) return by;
    const copy = (Array.isArray(value) ? [...(value as unknown[])] : { ...(value as object) }) as Record<
      string,
      unknown
    >;
    copy[key] = replaced(copy[key], rest, by);
    return copy;
  };
  const attempt = async (spec: unknown): Promise<void> => {
    try {
      (await addon.createProgram('cpu', spec as ProgramSpec)).close();
    } catch (error) {
      expect(error).toBeInstanceOf(Error);
    }
  };
  // Paths and text are left out: garbage there would make folders and run the compiler a thousand times.
  const places = paths.filter(
    ([first]) => !['cache', 'source', 'headers', 'clang', 'sourceName'].includes(defined(first)),
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...places), garbage, (place, by) => attempt(replaced(good, place, by))),
    { numRuns: 1000 },
  );
  await fc.assert(fc.asyncProperty(garbage, attempt), { numRuns: 300 });
});
