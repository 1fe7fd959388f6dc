import type { Fault } from '../fault.js';

const math = ['test/native/math.test.ts'];
const kernels = ['test/native/kernels.test.ts'];

/** Faults in the headers that give Metal text its meaning on the CPU device. */
export const nativeFaults: readonly Fault[] = [
  {
    file: 'native/msl/integer.h',
    find: '>> detail::bits<T>);',
    replace: '>> (detail::bits<T> - 1));',
    what: 'mulhi is off by a bit, and so are all random numbers',
    tests: math,
  },
  {
    file: 'native/msl/integer.h',
    find: 'UPGC_INLINE enable_if_t<!is_vector_v<T>, T> select(T a, T b, bool c) { return c ? b : a; }',
    replace: 'UPGC_INLINE enable_if_t<!is_vector_v<T>, T> select(T a, T b, bool c) { return c ? a : b; }',
    what: 'select takes the other operand',
    tests: math,
  },
  {
    file: 'native/msl/elementary.h',
    find: '0.166665152f',
    replace: '0.1666f',
    what: 'exp is off in its fifth digit',
    tests: math,
  },
  {
    file: 'native/msl/elementary.h',
    find: 'magnitude < 0.625f',
    replace: 'magnitude < 2.5f',
    what: 'tanh is wrong for numbers above 1',
    tests: math,
  },
  {
    file: 'native/msl/elementary.h',
    find: '-0.000212194442f',
    replace: '-0.000212f',
    what: 'log loses the last digits of ln 2',
    tests: math,
  },
  {
    file: 'native/msl/math.h',
    find: 'UPGC_FLOAT_1(rint, __builtin_rintf(x))',
    replace: 'UPGC_FLOAT_1(rint, __builtin_roundf(x))',
    what: 'rint rounds halves away from zero',
    tests: math,
  },
  {
    file: 'native/msl/simdgroup.h',
    find: 'const unsigned kept = (count + 1) / 2;',
    replace: 'const unsigned kept = count / 2;',
    what: 'reductions over an odd number of lanes lose one',
    tests: kernels,
  },
  {
    file: 'native/msl/simdgroup.h',
    find: 'store(slots[operands.lane[i]], inclusive ? next : total);',
    replace: 'store(slots[operands.lane[i]], next);',
    what: 'exclusive prefix sums include their own lane',
    tests: kernels,
  },
  {
    file: 'native/msl/simdgroup.h',
    find: 'value, upgc::lane_index() ^ mask)',
    replace: 'value, upgc::lane_index() + mask)',
    what: 'simd_shuffle_xor takes the value of the wrong lane',
    tests: kernels,
  },
  {
    file: 'native/msl/entry.h',
    find: 'UPGC_INDEX(simdgroup_index_in_threadgroup, at.index / simd_width)',
    replace: 'UPGC_INDEX(simdgroup_index_in_threadgroup, at.index % simd_width)',
    what: 'simdgroups do not know which of the threadgroup they are',
    tests: kernels,
  },
];
