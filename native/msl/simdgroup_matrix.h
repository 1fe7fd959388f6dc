// <metal_simdgroup_matrix>: 8x8 matrices that a simdgroup holds together. With 32 lanes each has two elements, in the
// layout of Apple's GPUs, which public kernels rely on; in a simdgroup of one thread, the thread has all 64.
#pragma once

#ifdef UPGC_CUDA
#include "cuda/simdgroup_matrix.h"
#else

#include "simdgroup.h"

namespace upgc {

/// What a lane gives to a product d = a b + c, and in `c` gets from it.
struct ProductOperands {
  float a[2];
  float b[2];
  float c[2];
};

/// Row of both elements of a lane, and column of the first.
constexpr unsigned matrix_row(unsigned lane) { return (lane >> 4 & 1) * 4 + (lane >> 1 & 3); }
constexpr unsigned matrix_column(unsigned lane) { return (lane >> 3 & 1) * 4 + (lane & 1) * 2; }

UPGC_INLINE void multiply_accumulate(const float* a, const float* b, float* c) {
  for (unsigned row = 0; row < 8; row++)
    for (unsigned k = 0; k < 8; k++)
      for (unsigned column = 0; column < 8; column++)
        c[8 * row + column] = __builtin_fmaf(a[8 * row + k], b[8 * k + column], c[8 * row + column]);
}

/// Lanes that take no part count as zeros (Metal: undefined).
inline void combine_multiply_accumulate(abi::Slot* slots, unsigned active) {
  float a[64] = {}, b[64] = {}, c[64] = {};
  ProductOperands operands;
  static_assert(sizeof operands <= sizeof slots->value);
  for (unsigned lane = 0; lane < abi::max_simd_width; lane++) {
    if ((active >> lane & 1) == 0) continue;
    __builtin_memcpy(&operands, slots[lane].value, sizeof operands);
    for (unsigned i = 0; i < 2; i++) {
      const unsigned at = 8 * matrix_row(lane) + matrix_column(lane) + i;
      a[at] = operands.a[i];
      b[at] = operands.b[i];
      c[at] = operands.c[i];
    }
  }
  multiply_accumulate(a, b, c);
  for (unsigned lane = 0; lane < abi::max_simd_width; lane++) {
    if ((active >> lane & 1) == 0) continue;
    __builtin_memcpy(operands.c, &c[8 * matrix_row(lane) + matrix_column(lane)], sizeof operands.c);
    store(slots[lane], operands);
  }
}

}  // namespace upgc

#define UPGC_SITE unsigned site = upgc::abi::site_of(__builtin_LINE(), __builtin_COLUMN())

namespace metal {

template <class T, int Columns, int Rows>
struct simdgroup_matrix {
  static_assert(Columns == 8 && Rows == 8, "Metal has simdgroup matrices of 8 x 8");
  static_assert(is_floating_point_v<T>, "Metal has simdgroup matrices of float, half and bfloat");
  /// Elements in this thread, in rows of `row_length`.
  static constexpr int count = upgc::simd_width == 1 ? 64 : 2;
  static constexpr int row_length = upgc::simd_width == 1 ? 8 : 2;

  simdgroup_matrix() = default;
  /// `diagonal` on the diagonal, 0 elsewhere.
  UPGC_INLINE explicit simdgroup_matrix(T diagonal) {
    for (int i = 0; i < count; i++) elements[i] = row(i) == column(i) ? diagonal : T(0);
  }

  UPGC_INLINE vec<T, 2>& thread_elements() {
#ifndef UPGC_STRICT
    // `sizeof` delays the check until the function is used.
    static_assert(count == 2 || sizeof(T) == 0,
                  "thread_elements() needs simdgroups of 32; this build has one thread in each");
#endif
    return reinterpret_cast<vec<T, 2>&>(elements);
  }
  UPGC_INLINE const vec<T, 2>& thread_elements() const {
    return const_cast<simdgroup_matrix*>(this)->thread_elements();
  }

  /// Where in the matrix this thread's i-th element is.
  static UPGC_INLINE unsigned row(int i) { return upgc::matrix_row(upgc::lane_index()) + unsigned(i / row_length); }
  static UPGC_INLINE unsigned column(int i) {
    return upgc::matrix_column(upgc::lane_index()) + unsigned(i % row_length);
  }

  alignas(vec<T, 2>) T elements[count];
};

using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat, 8, 8>;

template <class T, int Columns, int Rows = Columns>
UPGC_INLINE simdgroup_matrix<T, Columns, Rows> make_filled_simdgroup_matrix(type_identity_t<T> value) {
  simdgroup_matrix<T, Columns, Rows> result;
  for (T& element : result.elements) element = value;
  return result;
}

namespace detail {
/// Where in memory element i of a matrix lies.
template <class Matrix>
UPGC_INLINE ulong element_offset(int i, ulong row_length, ulong2 origin, bool transposed) {
  const ulong row = Matrix::row(i), column = Matrix::column(i);
  return (origin.y + (transposed ? column : row)) * row_length + origin.x + (transposed ? row : column);
}
}  // namespace detail

template <class T>
UPGC_INLINE void simdgroup_load(simdgroup_matrix<T, 8, 8>& to, const volatile type_identity_t<T>* from,
                                ulong elements_per_row = 8, ulong2 matrix_origin = 0, bool transpose_matrix = false) {
  using Matrix = simdgroup_matrix<T, 8, 8>;
  const T* const memory = const_cast<const T*>(from);
  for (int i = 0; i < Matrix::count; i++)
    to.elements[i] = memory[detail::element_offset<Matrix>(i, elements_per_row, matrix_origin, transpose_matrix)];
}
template <class T>
UPGC_INLINE void simdgroup_store(simdgroup_matrix<T, 8, 8> from, volatile type_identity_t<T>* to,
                                 ulong elements_per_row = 8, ulong2 matrix_origin = 0, bool transpose_matrix = false) {
  using Matrix = simdgroup_matrix<T, 8, 8>;
  T* const memory = const_cast<T*>(to);
  for (int i = 0; i < Matrix::count; i++)
    memory[detail::element_offset<Matrix>(i, elements_per_row, matrix_origin, transpose_matrix)] = from.elements[i];
}

/// d = a b + c, summed in float whatever the types.
template <class D, class A, class B, class C>
UPGC_INLINE void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                               simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c, UPGC_SITE) {
  constexpr int count = simdgroup_matrix<D, 8, 8>::count;
  if constexpr (count == 2) {
    upgc::ProductOperands operands;
    for (int i = 0; i < 2; i++) {
      operands.a[i] = float(a.elements[i]);
      operands.b[i] = float(b.elements[i]);
      operands.c[i] = float(c.elements[i]);
    }
    operands = upgc::rendezvous(upgc::combine_multiply_accumulate, operands, 0, site);
    for (int i = 0; i < 2; i++) d.elements[i] = D(operands.c[i]);
  } else {
    float wide_a[count], wide_b[count], sum[count];
    for (int i = 0; i < count; i++) {
      wide_a[i] = float(a.elements[i]);
      wide_b[i] = float(b.elements[i]);
      sum[i] = float(c.elements[i]);
    }
    upgc::multiply_accumulate(wide_a, wide_b, sum);
    for (int i = 0; i < count; i++) d.elements[i] = D(sum[i]);
  }
}
template <class D, class A, class B>
UPGC_INLINE void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                    simdgroup_matrix<B, 8, 8> b, UPGC_SITE) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<float, 8>(0.0f), site);
}
template <class T>
UPGC_INLINE simdgroup_matrix<T, 8, 8> operator*(simdgroup_matrix<T, 8, 8> a, simdgroup_matrix<T, 8, 8> b) {
  simdgroup_matrix<T, 8, 8> product;
  simdgroup_multiply(product, a, b);
  return product;
}

}  // namespace metal
#undef UPGC_SITE

using metal::simdgroup_bfloat8x8;
using metal::simdgroup_float8x8;
using metal::simdgroup_half8x8;

#endif  // UPGC_CUDA
