// vec<T, N>: Metal's float2 ... bfloat4, over clang's ext_vector. Swizzles of two and more components are properties;
// they are most of what would make this header slow to compile, so only those that the text uses exist: the loader
// lists them, as in `#define UPGC_SWIZZLES(M) M(xyz) M(wzyx)`.
#pragma once

#ifdef UPGC_CUDA
#include "cuda/vector.h"
#else

#include "scalar.h"

namespace metal {

template <class T, int N>
struct vec;
template <class T, int N, class Vector>
struct packed_vec;

template <class T>
constexpr bool is_vector_v = false;
template <class T, int N>
constexpr bool is_vector_v<vec<T, N>> = true;

namespace detail {

/// What a lane holds. clang has no ext_vector of bool that is laid out like Metal's, and none of bfloat.
template <class T>
using lane_t = conditional_t<is_same_v<T, bool>, uchar, conditional_t<is_same_v<T, bfloat>, ushort, T>>;
/// What a lane is computed with.
template <class T>
using wide_lane_t = conditional_t<is_same_v<T, bfloat>, float, lane_t<T>>;
template <class T, int N>
using ext_vector = T __attribute__((ext_vector_type(N)));
template <class T, int N>
using lanes_t = ext_vector<lane_t<T>, N>;

/// Selects the constructor that takes raw lanes; a bare vector would also match the constructor from a scalar.
struct from_lanes {};

template <class T>
UPGC_INLINE constexpr lane_t<T> to_lane(T value) {
  if constexpr (is_same_v<T, bfloat>) return value.bits;
  else return lane_t<T>(value);
}
template <class T>
UPGC_INLINE constexpr T from_lane(lane_t<T> lane) {
  if constexpr (is_same_v<T, bfloat>) return T(lane, typename T::from_bits{});
  else return T(lane);
}
template <class T, int N>
UPGC_INLINE constexpr ext_vector<wide_lane_t<T>, N> wide(lanes_t<T, N> lanes) {
  if constexpr (is_same_v<T, bfloat>)
    return __builtin_bit_cast(ext_vector<float, N>, __builtin_convertvector(lanes, ext_vector<uint, N>) << 16);
  else return lanes;
}
template <class T, int N>
UPGC_INLINE constexpr lanes_t<T, N> narrow(ext_vector<wide_lane_t<T>, N> lanes) {
  if constexpr (is_same_v<T, bfloat>) {
    ext_vector<ushort, N> result;
    for (int i = 0; i < N; i++) result[i] = T(lanes[i]).bits;
    return result;
  } else {
    return lanes;
  }
}

/// No value has this type: a parameter of it takes its overload out of the running.
class Never {
  Never();
};
/// A bfloat vector takes a float operand, though a bfloat is made of one only when asked to.
template <class T>
using also_from_t = conditional_t<is_same_v<T, bfloat>, float, Never>;

/// How many components an argument of a constructor of vec<T, ...> stands for.
template <class T, class Part>
constexpr int component_count = __is_constructible(T, Part) ? 1 : -100;
template <class T, int N>
constexpr int component_count<T, vec<T, N>> = N;
template <class T, int N, class Vector>
constexpr int component_count<T, packed_vec<T, N, Vector>> = N;

#ifndef UPGC_STRICT
#define UPGC_STRING const char*
#endif
/// The component that a swizzle's `i`-th letter names; -1 behind its end.
constexpr int component(UPGC_STRING swizzle, unsigned i) {
  for (unsigned k = 0; k <= i; k++)
    if (swizzle[k] == 0) return -1;
  switch (swizzle[i]) {
    case 'x': case 'r': return 0;
    case 'y': case 'g': return 1;
    case 'z': case 'b': return 2;
    default: return 3;
  }
}

template <int a, int b, int c, int d>
struct Swizzle {
  static constexpr int size = c < 0 ? 2 : d < 0 ? 3 : 4;
  static constexpr bool distinct = a != b && (c < 0 || (c != a && c != b)) && (d < 0 || (d != a && d != b && d != c));
  static constexpr bool fits(int n) { return a < n && b < n && c < n && d < n; }

  template <class T, int N>
  static UPGC_INLINE constexpr vec<T, size> get(vec<T, N> from) {
    static_assert(fits(N), "the vector has no such component");
    if constexpr (!fits(N)) return vec<T, size>();
    else if constexpr (size == 2) return {__builtin_shufflevector(from.lanes, from.lanes, a, b), from_lanes{}};
    else if constexpr (size == 3) return {__builtin_shufflevector(from.lanes, from.lanes, a, b, c), from_lanes{}};
    else return {__builtin_shufflevector(from.lanes, from.lanes, a, b, c, d), from_lanes{}};
  }
  template <class V, class T>
  static UPGC_INLINE void put(V& to, vec<T, size> value) {
    static_assert(fits(V::size), "the vector has no such component");
    static_assert(distinct, "a swizzle that names a component twice cannot be assigned to");
    to[a] = value[0];
    to[b] = value[1];
    if constexpr (c >= 0) to[c] = value[2];
    if constexpr (d >= 0) to[d] = value[3];
  }
};

#ifdef UPGC_SWIZZLES
#define UPGC_SWIZZLE(name) \
  using swizzle_##name = Swizzle<component(#name, 0), component(#name, 1), component(#name, 2), component(#name, 3)>;
UPGC_SWIZZLES(UPGC_SWIZZLE)
#undef UPGC_SWIZZLE
#else
#define UPGC_SWIZZLES(M)
#endif

}  // namespace detail

#define UPGC_SWIZZLE(name)                                                                                        \
  UPGC_INLINE constexpr vec<T, detail::swizzle_##name::size> upgc_get_##name() const {                            \
    return detail::swizzle_##name::get(vec<T, size>(*this));                                                      \
  }                                                                                                               \
  UPGC_INLINE void upgc_put_##name(vec<T, detail::swizzle_##name::size> value) {                                  \
    detail::swizzle_##name::put(*this, value);                                                                    \
  }                                                                                                               \
  __declspec(property(get = upgc_get_##name, put = upgc_put_##name)) vec<T, detail::swizzle_##name::size> name;

// `allowed` says for which component types Metal has the operator. clang finds the others out too, but not for bool and
// bfloat, whose lanes are integers.
#define UPGC_VECTOR_BINARY(op, allowed)                                                                   \
  friend UPGC_INLINE constexpr vec operator op(vec a, vec b) {                                            \
    static_assert(allowed, "Metal has no operator " #op " for vectors of this type");                     \
    return vec(detail::narrow<T, size>(detail::wide<T, size>(a.lanes) op detail::wide<T, size>(b.lanes)), \
               detail::from_lanes{});                                                                     \
  }                                                                                                       \
  UPGC_INLINE constexpr vec& operator op##=(vec b) { return *this = *this op b; }

#define UPGC_VECTOR_COMPARE(op)                                                                                   \
  friend UPGC_INLINE constexpr vec<bool, size> operator op(vec a, vec b) {                                        \
    return vec<bool, size>::from_mask(detail::wide<T, size>(a.lanes) op detail::wide<T, size>(b.lanes));          \
  }

// Friends of a class template are compiled only when used.
#define UPGC_VECTOR_MEMBERS(N)                                                                              \
  using value_type = T;                                                                                     \
  static constexpr int size = N;                                                                            \
  using Lanes = detail::lanes_t<T, N>;                                                                      \
  vec() = default;                                                                                          \
  UPGC_INLINE constexpr vec(Lanes raw, detail::from_lanes) : lanes(raw) {}                                  \
  UPGC_INLINE constexpr vec(T all) : lanes(detail::to_lane<T>(all)) {}                                      \
  UPGC_INLINE constexpr vec(detail::also_from_t<T> all) : vec(T(all)) {}                                    \
  template <class U>                                                                                        \
  UPGC_INLINE constexpr explicit vec(vec<U, N> other) : lanes(converted(other)) {}                          \
  /* From scalars and shorter vectors; all scalars are below. */                                            \
  template <class A, class B, class... Rest,                                                                \
            class = enable_if_t<(detail::component_count<T, A> + ... + detail::component_count<T, Rest>) +  \
                                    detail::component_count<T, B> == N>>                                    \
  UPGC_INLINE vec(A a, B b, Rest... rest) {                                                                 \
    int at = 0;                                                                                             \
    append(at, a);                                                                                          \
    append(at, b);                                                                                          \
    (append(at, rest), ...);                                                                                \
  }                                                                                                         \
  template <class Part>                                                                                     \
  UPGC_INLINE void append(int& at, Part part) {                                                             \
    if constexpr (__is_constructible(T, Part)) (*this)[at++] = T(part);                                     \
    else for (int i = 0; i < Part::size; i++) (*this)[at++] = part[i];                                      \
  }                                                                                                         \
  template <class U>                                                                                        \
  static UPGC_INLINE constexpr Lanes converted(vec<U, N> other) {                                           \
    using Wide = detail::ext_vector<detail::wide_lane_t<T>, N>;                                             \
    if constexpr (is_same_v<T, bool>) return from_mask(detail::wide<U, N>(other.lanes) != 0).lanes;         \
    else return detail::narrow<T, N>(__builtin_convertvector(detail::wide<U, N>(other.lanes), Wide));       \
  }                                                                                                         \
  template <class Mask>                                                                                     \
  static UPGC_INLINE constexpr vec from_mask(Mask mask) {                                                   \
    return vec(__builtin_convertvector(mask, Lanes) & 1, detail::from_lanes{});                             \
  }                                                                                                         \
  UPGC_INLINE T& operator[](int i) { return (&x)[i]; }                                                      \
  UPGC_INLINE constexpr T operator[](int i) const { return detail::from_lane<T>(lanes[i]); }                \
  UPGC_VECTOR_BINARY(+, (!is_same_v<T, bool>))                                                              \
  UPGC_VECTOR_BINARY(-, (!is_same_v<T, bool>))                                                              \
  UPGC_VECTOR_BINARY(*, (!is_same_v<T, bool>))                                                              \
  UPGC_VECTOR_BINARY(/, (!is_same_v<T, bool>))                                                              \
  UPGC_VECTOR_BINARY(%, is_integral_v<T> && (!is_same_v<T, bool>))                                          \
  UPGC_VECTOR_BINARY(&, is_integral_v<T>)                                                                   \
  UPGC_VECTOR_BINARY(|, is_integral_v<T>)                                                                   \
  UPGC_VECTOR_BINARY(^, is_integral_v<T>)                                                                   \
  UPGC_VECTOR_BINARY(<<, is_integral_v<T> && (!is_same_v<T, bool>))                                         \
  UPGC_VECTOR_BINARY(>>, is_integral_v<T> && (!is_same_v<T, bool>))                                         \
  UPGC_VECTOR_COMPARE(==)                                                                                   \
  UPGC_VECTOR_COMPARE(!=)                                                                                   \
  UPGC_VECTOR_COMPARE(<)                                                                                    \
  UPGC_VECTOR_COMPARE(<=)                                                                                   \
  UPGC_VECTOR_COMPARE(>)                                                                                    \
  UPGC_VECTOR_COMPARE(>=)                                                                                   \
  friend UPGC_INLINE vec<bool, N> operator&&(vec a, vec b) { return vec<bool, N>(a) & vec<bool, N>(b); }    \
  friend UPGC_INLINE vec<bool, N> operator||(vec a, vec b) { return vec<bool, N>(a) | vec<bool, N>(b); }    \
  UPGC_INLINE constexpr vec operator+() const { return *this; }                                             \
  UPGC_INLINE constexpr vec operator-() const {                                                             \
    return vec(detail::narrow<T, N>(-detail::wide<T, N>(lanes)), detail::from_lanes{});                     \
  }                                                                                                         \
  UPGC_INLINE constexpr vec operator~() const {                                                             \
    static_assert(is_integral_v<T> && !is_same_v<T, bool>, "Metal has no operator ~ for vectors of this type"); \
    return vec(~lanes, detail::from_lanes{});                                                               \
  }                                                                                                         \
  UPGC_INLINE constexpr vec<bool, N> operator!() const {                                                    \
    return vec<bool, N>::from_mask(detail::wide<T, N>(lanes) == 0);                                         \
  }                                                                                                         \
  UPGC_INLINE constexpr vec& operator++() { return *this += T(1); }                                         \
  UPGC_INLINE constexpr vec& operator--() { return *this -= T(1); }                                         \
  UPGC_INLINE constexpr vec operator++(int) {                                                               \
    const vec before = *this;                                                                               \
    ++*this;                                                                                                \
    return before;                                                                                          \
  }                                                                                                         \
  UPGC_INLINE constexpr vec operator--(int) {                                                               \
    const vec before = *this;                                                                               \
    --*this;                                                                                                \
    return before;                                                                                          \
  }                                                                                                         \
  UPGC_SWIZZLES(UPGC_SWIZZLE)

template <class T>
struct vec<T, 2> {
  union {
    detail::lanes_t<T, 2> lanes;
    struct {
      T x, y;
    };
    struct {
      T r, g;
    };
  };
  UPGC_VECTOR_MEMBERS(2)
  UPGC_INLINE constexpr vec(T a, T b) : lanes{detail::to_lane<T>(a), detail::to_lane<T>(b)} {}
};

template <class T>
struct vec<T, 3> {
  union {
    detail::lanes_t<T, 3> lanes;
    struct {
      T x, y, z;
    };
    struct {
      T r, g, b;
    };
  };
  UPGC_VECTOR_MEMBERS(3)
  UPGC_INLINE constexpr vec(T a, T b, T c)
      : lanes{detail::to_lane<T>(a), detail::to_lane<T>(b), detail::to_lane<T>(c)} {}
};

template <class T>
struct vec<T, 4> {
  union {
    detail::lanes_t<T, 4> lanes;
    struct {
      T x, y, z, w;
    };
    struct {
      T r, g, b, a;
    };
  };
  UPGC_VECTOR_MEMBERS(4)
  UPGC_INLINE constexpr vec(T a, T b, T c, T d)
      : lanes{detail::to_lane<T>(a), detail::to_lane<T>(b), detail::to_lane<T>(c), detail::to_lane<T>(d)} {}
};

#undef UPGC_VECTOR_MEMBERS
#undef UPGC_VECTOR_COMPARE
#undef UPGC_VECTOR_BINARY

#define UPGC_VECTOR_NAMES(T) \
  using T##2 = vec<T, 2>;    \
  using T##3 = vec<T, 3>;    \
  using T##4 = vec<T, 4>;
#define UPGC_VECTOR_TYPES(M) \
  M(bool) M(char) M(uchar) M(short) M(ushort) M(int) M(uint) M(long) M(ulong) M(half) M(bfloat) M(float)
UPGC_VECTOR_TYPES(UPGC_VECTOR_NAMES)
#undef UPGC_VECTOR_NAMES

}  // namespace metal

#define UPGC_VECTOR_NAMES(T) \
  using metal::T##2;         \
  using metal::T##3;         \
  using metal::T##4;
UPGC_VECTOR_TYPES(UPGC_VECTOR_NAMES)
#undef UPGC_VECTOR_NAMES

#endif  // UPGC_CUDA
