// <metal_matrix>: float2x2 ... half4x4, stored by columns; NxM has N columns of M rows.
#pragma once

#include "math.h"

namespace metal {

template <class T, int Columns, int Rows>
struct matrix {
  using Column = vec<T, Rows>;

  matrix() = default;
  /// `diagonal` on the diagonal, 0 elsewhere.
  UPGC_INLINE explicit matrix(T diagonal) {
    for (int c = 0; c < Columns; c++)
      for (int r = 0; r < Rows; r++) columns[c][r] = r == c ? diagonal : T(0);
  }
  /// From its columns, or from all its elements column by column.
  template <class... Parts, class = enable_if_t<sizeof...(Parts) == Columns || sizeof...(Parts) == Columns * Rows>>
  UPGC_INLINE matrix(Parts... parts) {
    if constexpr (sizeof...(Parts) == Columns) {
      const Column all[] = {parts...};
      for (int c = 0; c < Columns; c++) columns[c] = all[c];
    } else {
      const T all[] = {T(parts)...};
      for (int c = 0; c < Columns; c++)
        for (int r = 0; r < Rows; r++) columns[c][r] = all[c * Rows + r];
    }
  }
  template <class U>
  UPGC_INLINE explicit matrix(matrix<U, Columns, Rows> other) {
    for (int c = 0; c < Columns; c++) columns[c] = Column(other[c]);
  }

  UPGC_INLINE Column& operator[](int c) { return columns[c]; }
  UPGC_INLINE const Column& operator[](int c) const { return columns[c]; }

  friend UPGC_INLINE matrix operator+(matrix a, matrix b) {
    for (int c = 0; c < Columns; c++) a.columns[c] += b.columns[c];
    return a;
  }
  friend UPGC_INLINE matrix operator-(matrix a, matrix b) {
    for (int c = 0; c < Columns; c++) a.columns[c] -= b.columns[c];
    return a;
  }
  friend UPGC_INLINE matrix operator*(matrix a, T scale) {
    for (int c = 0; c < Columns; c++) a.columns[c] *= scale;
    return a;
  }
  friend UPGC_INLINE matrix operator*(T scale, matrix a) { return a * scale; }
  friend UPGC_INLINE vec<T, Rows> operator*(const matrix& a, const vec<T, Columns> x) {
    vec<T, Rows> sum = a.columns[0] * x[0];
    for (int c = 1; c < Columns; c++) sum += a.columns[c] * x[c];
    return sum;
  }
  friend UPGC_INLINE vec<T, Columns> operator*(vec<T, Rows> x, const matrix& a) {
    vec<T, Columns> result;
    for (int c = 0; c < Columns; c++) result[c] = dot(x, a.columns[c]);
    return result;
  }
  friend UPGC_INLINE bool operator==(const matrix& a, const matrix& b) {
    bool equal = true;
    for (int c = 0; c < Columns; c++) equal = equal && all(a.columns[c] == b.columns[c]);
    return equal;
  }
  friend UPGC_INLINE bool operator!=(const matrix& a, const matrix& b) { return !(a == b); }
  UPGC_INLINE matrix operator-() const { return *this * T(-1); }
  UPGC_INLINE matrix& operator+=(const matrix& b) { return *this = *this + b; }
  UPGC_INLINE matrix& operator-=(const matrix& b) { return *this = *this - b; }
  UPGC_INLINE matrix& operator*=(T scale) { return *this = *this * scale; }
  UPGC_INLINE matrix& operator*=(const matrix<T, Columns, Columns>& b) { return *this = *this * b; }

  Column columns[Columns];
};

template <class T, int Inner, int Rows, int Columns>
UPGC_INLINE matrix<T, Columns, Rows> operator*(const matrix<T, Inner, Rows>& a, const matrix<T, Columns, Inner>& b) {
  matrix<T, Columns, Rows> product;
  for (int c = 0; c < Columns; c++) product[c] = a * b[c];
  return product;
}

template <class T, int Columns, int Rows>
UPGC_INLINE matrix<T, Rows, Columns> transpose(const matrix<T, Columns, Rows>& a) {
  matrix<T, Rows, Columns> result;
  for (int c = 0; c < Columns; c++)
    for (int r = 0; r < Rows; r++) result[r][c] = a[c][r];
  return result;
}

template <class T>
UPGC_INLINE T determinant(const matrix<T, 2, 2>& a) { return a[0][0] * a[1][1] - a[1][0] * a[0][1]; }
template <class T>
UPGC_INLINE T determinant(const matrix<T, 3, 3>& a) { return dot(a[0], cross(a[1], a[2])); }
/// By 2x2 minors of the upper and of the lower two rows.
template <class T>
UPGC_INLINE T determinant(const matrix<T, 4, 4>& a) {
  const auto minor = [&](int row, int i, int j) { return a[i][row] * a[j][row + 1] - a[j][row] * a[i][row + 1]; };
  return minor(0, 0, 1) * minor(2, 2, 3) - minor(0, 0, 2) * minor(2, 1, 3) + minor(0, 0, 3) * minor(2, 1, 2) +
         minor(0, 1, 2) * minor(2, 0, 3) - minor(0, 1, 3) * minor(2, 0, 2) + minor(0, 2, 3) * minor(2, 0, 1);
}

#define UPGC_MATRIX_SIZES(M, T) \
  M(T, 2, 2) M(T, 2, 3) M(T, 2, 4) M(T, 3, 2) M(T, 3, 3) M(T, 3, 4) M(T, 4, 2) M(T, 4, 3) M(T, 4, 4)
#define UPGC_MATRIX_NAME(T, columns, rows) using T##columns##x##rows = matrix<T, columns, rows>;
UPGC_MATRIX_SIZES(UPGC_MATRIX_NAME, float)
UPGC_MATRIX_SIZES(UPGC_MATRIX_NAME, half)
#undef UPGC_MATRIX_NAME

}  // namespace metal

#define UPGC_MATRIX_NAME(T, columns, rows) using metal::T##columns##x##rows;
UPGC_MATRIX_SIZES(UPGC_MATRIX_NAME, float)
UPGC_MATRIX_SIZES(UPGC_MATRIX_NAME, half)
#undef UPGC_MATRIX_NAME
#undef UPGC_MATRIX_SIZES
