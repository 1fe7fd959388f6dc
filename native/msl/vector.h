// vec<T, N>: Metal's float2 ... ulong4. No swizzles beyond single components: emitted kernels use none, and they
// are most of what makes a vector header slow to compile.
#pragma once

#include "scalar.h"

namespace metal {

template <class T, int N>
struct vec;

namespace detail {
/// clang has no ext_vector of bool that is laid out like Metal's.
template <class T>
using lane_t = conditional_t<is_same_v<T, bool>, uchar, T>;
template <class T, int N>
using lanes_t = lane_t<T> __attribute__((ext_vector_type(N)));
/// Selects the constructor that takes raw lanes; a bare vector would also match the constructor from a scalar.
struct from_lanes {};
}  // namespace detail

#define UPGC_VECTOR_BINARY(op)                                   \
  friend UPGC_INLINE constexpr vec operator op(vec a, vec b) {   \
    return vec(a.lanes op b.lanes, detail::from_lanes{});        \
  }                                                              \
  UPGC_INLINE vec& operator op##=(vec b) {                       \
    lanes = lanes op b.lanes;                                    \
    return *this;                                                \
  }

#define UPGC_VECTOR_COMPARE(op, left, right)                                             \
  friend UPGC_INLINE constexpr vec<bool, size> operator op(vec a, vec b) {               \
    return vec<bool, size>::from_mask((left) op (right));                                \
  }

// Friends of a class template are compiled only when used, so `%` on float vectors costs nothing and stays an error.
#define UPGC_VECTOR_MEMBERS(N)                                                                              \
  static constexpr int size = N;                                                                            \
  using Lanes = detail::lanes_t<T, N>;                                                                      \
  vec() = default;                                                                                          \
  UPGC_INLINE constexpr vec(Lanes raw, detail::from_lanes) : lanes(raw) {}                                  \
  UPGC_INLINE constexpr vec(T all) : lanes(detail::lane_t<T>(all)) {}                                       \
  template <class U>                                                                                        \
  UPGC_INLINE constexpr explicit vec(vec<U, N> other) : lanes(converted(other)) {}                          \
  template <class U>                                                                                        \
  static UPGC_INLINE constexpr Lanes converted(vec<U, N> other) {                                           \
    if constexpr (is_same_v<T, bool>) return from_mask(other.lanes != 0).lanes;                             \
    else return __builtin_convertvector(other.lanes, Lanes);                                                \
  }                                                                                                         \
  template <class Mask>                                                                                     \
  static UPGC_INLINE constexpr vec from_mask(Mask mask) {                                                   \
    return vec(__builtin_convertvector(mask, Lanes) & 1, detail::from_lanes{});                             \
  }                                                                                                         \
  UPGC_INLINE T& operator[](int i) { return (&x)[i]; }                                                      \
  UPGC_INLINE T operator[](int i) const { return T(lanes[i]); }                                             \
  UPGC_VECTOR_BINARY(+)                                                                                     \
  UPGC_VECTOR_BINARY(-)                                                                                     \
  UPGC_VECTOR_BINARY(*)                                                                                     \
  UPGC_VECTOR_BINARY(/)                                                                                     \
  UPGC_VECTOR_BINARY(%)                                                                                     \
  UPGC_VECTOR_BINARY(&)                                                                                     \
  UPGC_VECTOR_BINARY(|)                                                                                     \
  UPGC_VECTOR_BINARY(^)                                                                                     \
  UPGC_VECTOR_BINARY(<<)                                                                                    \
  UPGC_VECTOR_BINARY(>>)                                                                                    \
  UPGC_VECTOR_COMPARE(==, a.lanes, b.lanes)                                                                 \
  UPGC_VECTOR_COMPARE(!=, a.lanes, b.lanes)                                                                 \
  UPGC_VECTOR_COMPARE(<, a.lanes, b.lanes)                                                                  \
  UPGC_VECTOR_COMPARE(<=, a.lanes, b.lanes)                                                                 \
  UPGC_VECTOR_COMPARE(>, a.lanes, b.lanes)                                                                  \
  UPGC_VECTOR_COMPARE(>=, a.lanes, b.lanes)                                                                 \
  friend UPGC_INLINE vec<bool, N> operator&&(vec a, vec b) { return vec<bool, N>(a) & vec<bool, N>(b); }    \
  friend UPGC_INLINE vec<bool, N> operator||(vec a, vec b) { return vec<bool, N>(a) | vec<bool, N>(b); }    \
  UPGC_INLINE constexpr vec operator-() const { return vec(-lanes, detail::from_lanes{}); }                 \
  UPGC_INLINE constexpr vec operator~() const { return vec(~lanes, detail::from_lanes{}); }                 \
  UPGC_INLINE constexpr vec<bool, N> operator!() const { return vec<bool, N>::from_mask(lanes == 0); }

template <class T>
struct vec<T, 2> {
  union {
    detail::lanes_t<T, 2> lanes;
    struct {
      T x, y;
    };
  };
  UPGC_VECTOR_MEMBERS(2)
  UPGC_INLINE constexpr vec(T a, T b) : lanes{a, b} {}
};

template <class T>
struct vec<T, 3> {
  union {
    detail::lanes_t<T, 3> lanes;
    struct {
      T x, y, z;
    };
  };
  UPGC_VECTOR_MEMBERS(3)
  UPGC_INLINE constexpr vec(T a, T b, T c) : lanes{a, b, c} {}
  UPGC_INLINE constexpr vec(vec<T, 2> ab, T c) : lanes{ab.lanes[0], ab.lanes[1], c} {}
  UPGC_INLINE constexpr vec(T a, vec<T, 2> bc) : lanes{a, bc.lanes[0], bc.lanes[1]} {}
};

template <class T>
struct vec<T, 4> {
  union {
    detail::lanes_t<T, 4> lanes;
    struct {
      T x, y, z, w;
    };
  };
  UPGC_VECTOR_MEMBERS(4)
  UPGC_INLINE constexpr vec(T a, T b, T c, T d) : lanes{a, b, c, d} {}
  UPGC_INLINE constexpr vec(vec<T, 2> ab, T c, T d) : lanes{ab.lanes[0], ab.lanes[1], c, d} {}
  UPGC_INLINE constexpr vec(T a, T b, vec<T, 2> cd) : lanes{a, b, cd.lanes[0], cd.lanes[1]} {}
  UPGC_INLINE constexpr vec(vec<T, 2> ab, vec<T, 2> cd)
      : lanes{ab.lanes[0], ab.lanes[1], cd.lanes[0], cd.lanes[1]} {}
  UPGC_INLINE constexpr vec(vec<T, 3> abc, T d) : lanes{abc.lanes[0], abc.lanes[1], abc.lanes[2], d} {}
  UPGC_INLINE constexpr vec(T a, vec<T, 3> bcd) : lanes{a, bcd.lanes[0], bcd.lanes[1], bcd.lanes[2]} {}
};

#undef UPGC_VECTOR_MEMBERS
#undef UPGC_VECTOR_COMPARE
#undef UPGC_VECTOR_BINARY

template <class T>
constexpr bool is_vector_v = false;
template <class T, int N>
constexpr bool is_vector_v<vec<T, N>> = true;

}  // namespace metal

#define UPGC_VECTOR_NAMES(T)        \
  using T##2 = metal::vec<T, 2>;    \
  using T##3 = metal::vec<T, 3>;    \
  using T##4 = metal::vec<T, 4>;
UPGC_VECTOR_NAMES(bool)
UPGC_VECTOR_NAMES(char)
UPGC_VECTOR_NAMES(uchar)
UPGC_VECTOR_NAMES(short)
UPGC_VECTOR_NAMES(ushort)
UPGC_VECTOR_NAMES(int)
UPGC_VECTOR_NAMES(uint)
UPGC_VECTOR_NAMES(long)
UPGC_VECTOR_NAMES(ulong)
UPGC_VECTOR_NAMES(half)
UPGC_VECTOR_NAMES(float)
#undef UPGC_VECTOR_NAMES
