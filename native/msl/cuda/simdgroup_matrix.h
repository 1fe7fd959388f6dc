// <metal_simdgroup_matrix>: 8x8 matrices that a warp holds together, two elements in each lane, in the layout of the
// tensor cores' accumulators: lane 4 r + c has row r, columns 2 c and 2 c + 1. So `thread_elements()` has other elements
// than on Apple's GPUs, and serves for what is done to every element alike. A matrix of 16-bit elements that was loaded
// transposed is held transposed, for that is how tensor cores want the second factor of a product.
#pragma once

#include "simdgroup.h"

namespace upgc {

/// Two 16-bit elements as a register of the tensor cores.
template <class T>
UPGC_INLINE unsigned element_pair(const T* elements) {
  return unsigned(__builtin_bit_cast(unsigned short, elements[0])) |
         unsigned(__builtin_bit_cast(unsigned short, elements[1])) << 16;
}

/// The register of the transposed matrix.
UPGC_INLINE unsigned transposed_pair(unsigned pair) {
  unsigned transposed;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(pair));
  return transposed;
}

/// c += a b of 16-bit matrices, b by its columns. The instruction multiplies 16 rows of a; the lower 8 are zero here, and
/// what becomes of those of c is nobody's concern.
template <bool is_half>
UPGC_INLINE void tensor_multiply_accumulate(unsigned a, unsigned b, float* c, float* lower_c) {
  if constexpr (is_half)
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(lower_c[0]), "+f"(lower_c[1])
        : "r"(a), "r"(0), "r"(b));
  else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(lower_c[0]), "+f"(lower_c[1])
        : "r"(a), "r"(0), "r"(b));
}

/// The same of float matrices, which tensor cores would round: by shuffles, summed as on the CPU device.
UPGC_INLINE void float_multiply_accumulate(const float* a, const float* b, float* c) {
  const unsigned lane = lane_index();
  for (unsigned k = 0; k < 8; k++) {
    const float left = from_lane(a[k % 2], lane / 4 * 4 + k / 2);
    for (unsigned i = 0; i < 2; i++) c[i] = __builtin_fmaf(left, from_lane(b[i], k * 4 + lane % 4), c[i]);
  }
}

}  // namespace upgc

namespace metal {

template <class T, int Columns, int Rows>
struct simdgroup_matrix {
  static_assert(Columns == 8 && Rows == 8, "Metal has simdgroup matrices of 8 x 8");
  static_assert(is_floating_point_v<T>, "Metal has simdgroup matrices of float, half and bfloat");

  simdgroup_matrix() = default;
  /// `diagonal` on the diagonal, 0 elsewhere.
  UPGC_INLINE explicit simdgroup_matrix(T diagonal) {
    for (unsigned i = 0; i < 2; i++) elements[i] = row() == column() + i ? diagonal : T(0);
  }

  UPGC_INLINE vec<T, 2>& thread_elements() {
    straighten();
    return reinterpret_cast<vec<T, 2>&>(elements);
  }
  UPGC_INLINE const vec<T, 2>& thread_elements() const {
    return const_cast<simdgroup_matrix*>(this)->thread_elements();
  }

  /// Two 16-bit elements in a register of the tensor cores, of the matrix or of the transposed one.
  UPGC_INLINE unsigned pair(bool of_transposed) const {
    const unsigned held = upgc::element_pair(elements);
    return transposed == of_transposed ? held : upgc::transposed_pair(held);
  }
  /// Holds the matrix as it is.
  UPGC_INLINE void straighten() {
    if constexpr (sizeof(T) == 2) set_pair(pair(false), false);
  }
  UPGC_INLINE void set_pair(unsigned pair, bool of_transposed) {
    for (unsigned i = 0; i < 2; i++) elements[i] = __builtin_bit_cast(T, (unsigned short)(pair >> 16 * i));
    transposed = of_transposed;
  }

  /// Row of both elements of this lane, and column of the first.
  static UPGC_INLINE unsigned row() { return upgc::lane_index() / 4; }
  static UPGC_INLINE unsigned column() { return upgc::lane_index() % 4 * 2; }

  alignas(vec<T, 2>) T elements[2];
  /// Whether these are of the transposed matrix.
  bool transposed = false;
  /// Of an accumulator, what the tensor cores make of 8 more rows.
  float lower[2];
};

using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat, 8, 8>;

template <class T, int Columns, int Rows = Columns>
UPGC_INLINE simdgroup_matrix<T, Columns, Rows> make_filled_simdgroup_matrix(type_identity_t<T> value) {
  simdgroup_matrix<T, Columns, Rows> result;
  result.elements[0] = result.elements[1] = value;
  result.lower[0] = result.lower[1] = 0.0f;
  return result;
}

namespace detail {
/// Where in memory this lane's element i of a matrix lies.
template <class Matrix>
UPGC_INLINE ulong element_offset(unsigned i, ulong row_length, ulong2 origin, bool transposed) {
  const ulong row = Matrix::row(), column = Matrix::column() + i;
  return (origin.y + (transposed ? column : row)) * row_length + origin.x + (transposed ? row : column);
}
}  // namespace detail

template <class T>
UPGC_INLINE void simdgroup_load(simdgroup_matrix<T, 8, 8>& to, const volatile type_identity_t<T>* from,
                                ulong elements_per_row = 8, ulong2 matrix_origin = 0, bool transpose_matrix = false) {
  const T* const memory = const_cast<const T*>(from);
  using Matrix = simdgroup_matrix<T, 8, 8>;
  if constexpr (sizeof(T) == 2) {
    const T* const own = memory + detail::element_offset<Matrix>(0, elements_per_row, matrix_origin, false);
    // One load where the compiler sees that rows start at multiples of four bytes. It knows where threadgroup memory starts
    // only in that memory's own addresses; those of other memory keep their lowest bits in them.
    if ((__cvta_generic_to_shared(memory) & 3) == 0 && elements_per_row % 2 == 0 && matrix_origin.x % 2 == 0) to.set_pair(*(const unsigned*)own, transpose_matrix);
    else to.set_pair(upgc::element_pair(own), transpose_matrix);
    return;
  }
  for (unsigned i = 0; i < 2; i++)
    to.elements[i] = memory[detail::element_offset<simdgroup_matrix<T, 8, 8>>(i, elements_per_row, matrix_origin,
                                                                              transpose_matrix)];
}
template <class T>
UPGC_INLINE void simdgroup_store(simdgroup_matrix<T, 8, 8> from, volatile type_identity_t<T>* to,
                                 ulong elements_per_row = 8, ulong2 matrix_origin = 0, bool transpose_matrix = false) {
  T* const memory = const_cast<T*>(to);
  from.straighten();
  for (unsigned i = 0; i < 2; i++)
    memory[detail::element_offset<simdgroup_matrix<T, 8, 8>>(i, elements_per_row, matrix_origin, transpose_matrix)] =
        from.elements[i];
}

/// d = a b + c, summed in float whatever the types.
template <class D, class A, class B, class C>
UPGC_INLINE void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                               simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c) {
  c.straighten();
  float sum[2] = {float(c.elements[0]), float(c.elements[1])};
  float lower[2] = {c.lower[0], c.lower[1]};
  if constexpr (is_same_v<A, B> && !is_same_v<A, float>) {
    upgc::tensor_multiply_accumulate<is_same_v<A, half>>(a.pair(false), b.pair(true), sum, lower);
  } else {
    a.straighten();
    b.straighten();
    const float left[2] = {float(a.elements[0]), float(a.elements[1])};
    const float right[2] = {float(b.elements[0]), float(b.elements[1])};
    upgc::float_multiply_accumulate(left, right, sum);
  }
  for (unsigned i = 0; i < 2; i++) d.lower[i] = lower[i];
  d.transposed = false;
  for (unsigned i = 0; i < 2; i++) d.elements[i] = D(sum[i]);
}
template <class D, class A, class B>
UPGC_INLINE void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                    simdgroup_matrix<B, 8, 8> b) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<float, 8>(0.0f));
}
template <class T>
UPGC_INLINE simdgroup_matrix<T, 8, 8> operator*(simdgroup_matrix<T, 8, 8> a, simdgroup_matrix<T, 8, 8> b) {
  simdgroup_matrix<T, 8, 8> product;
  simdgroup_multiply(product, a, b);
  return product;
}

}  // namespace metal

using metal::simdgroup_bfloat8x8;
using metal::simdgroup_float8x8;
using metal::simdgroup_half8x8;
