// packed_float3 and its like: the components of a vector without its alignment. They compute as the vectors that they
// convert to.
#pragma once

#include "math.h"

namespace metal {

/// `Vector` is always vec<T, N>. As a template argument it lets operators on packed vectors find those of the vector.
template <class T, int N, class Vector = vec<T, N>>
struct packed_vec;

#define UPGC_PACKED_ASSIGN(op) \
  UPGC_INLINE packed_vec& operator op##=(Vector other) { return *this = Vector(*this) op other; }

#define UPGC_PACKED_MEMBERS(N)                                                                                 \
  using value_type = T;                                                                                        \
  static constexpr int size = N;                                                                               \
  packed_vec() = default;                                                                                      \
  UPGC_INLINE packed_vec(Vector from) {                                                                        \
    for (int i = 0; i < N; i++) (*this)[i] = from[i];                                                          \
  }                                                                                                            \
  UPGC_INLINE packed_vec(T all) : packed_vec(Vector(all)) {}                                                   \
  template <class U>                                                                                           \
  UPGC_INLINE explicit packed_vec(vec<U, N> from) : packed_vec(Vector(from)) {}                                \
  template <class A, class B, class... Rest, class = enable_if_t<__is_constructible(Vector, A, B, Rest...)>>   \
  UPGC_INLINE packed_vec(A a, B b, Rest... rest) : packed_vec(Vector(a, b, rest...)) {}                        \
  UPGC_INLINE operator Vector() const {                                                                        \
    Vector result;                                                                                             \
    for (int i = 0; i < N; i++) result[i] = (*this)[i];                                                        \
    return result;                                                                                             \
  }                                                                                                            \
  template <class U>                                                                                           \
  UPGC_INLINE explicit operator vec<U, N>() const { return vec<U, N>(Vector(*this)); }                         \
  UPGC_INLINE T& operator[](int i) { return (&x)[i]; }                                                         \
  UPGC_INLINE const T& operator[](int i) const { return (&x)[i]; }                                             \
  UPGC_PACKED_ASSIGN(+)                                                                                        \
  UPGC_PACKED_ASSIGN(-)                                                                                        \
  UPGC_PACKED_ASSIGN(*)                                                                                        \
  UPGC_PACKED_ASSIGN(/)                                                                                        \
  UPGC_PACKED_ASSIGN(%)                                                                                        \
  UPGC_PACKED_ASSIGN(&)                                                                                        \
  UPGC_PACKED_ASSIGN(|)                                                                                        \
  UPGC_PACKED_ASSIGN(^)                                                                                        \
  UPGC_PACKED_ASSIGN(<<)                                                                                       \
  UPGC_PACKED_ASSIGN(>>)                                                                                       \
  UPGC_INLINE Vector operator-() const { return -Vector(*this); }                                              \
  UPGC_INLINE Vector operator~() const { return ~Vector(*this); }                                              \
  UPGC_INLINE vec<bool, N> operator!() const { return !Vector(*this); }                                        \
  UPGC_SWIZZLES(UPGC_SWIZZLE)

template <class T, class Vector>
struct packed_vec<T, 2, Vector> {
  union {
    struct {
      T x, y;
    };
    struct {
      T r, g;
    };
  };
  UPGC_PACKED_MEMBERS(2)
};

template <class T, class Vector>
struct packed_vec<T, 3, Vector> {
  union {
    struct {
      T x, y, z;
    };
    struct {
      T r, g, b;
    };
  };
  UPGC_PACKED_MEMBERS(3)
};

template <class T, class Vector>
struct packed_vec<T, 4, Vector> {
  union {
    struct {
      T x, y, z, w;
    };
    struct {
      T r, g, b, a;
    };
  };
  UPGC_PACKED_MEMBERS(4)
};

#undef UPGC_PACKED_MEMBERS
#undef UPGC_PACKED_ASSIGN

// Functions deduce the type of a vector, so each of them is said again.
#define UPGC_PACKED_1(name) \
  template <class T, int N> \
  UPGC_INLINE auto name(packed_vec<T, N> x) { return name(vec<T, N>(x)); }
#define UPGC_PACKED_2(name) \
  template <class T, int N> \
  UPGC_INLINE auto name(packed_vec<T, N> x, type_identity_t<vec<T, N>> y) { return name(vec<T, N>(x), y); }
#define UPGC_PACKED_3(name)                                                                                    \
  template <class T, int N>                                                                                    \
  UPGC_INLINE auto name(packed_vec<T, N> x, type_identity_t<vec<T, N>> y, type_identity_t<vec<T, N>> z) {      \
    return name(vec<T, N>(x), y, z);                                                                           \
  }
UPGC_MATH_1(UPGC_PACKED_1)
UPGC_MATH_2(UPGC_PACKED_2)
UPGC_MATH_3(UPGC_PACKED_3)
UPGC_PACKED_1(length)
UPGC_PACKED_1(length_squared)
UPGC_PACKED_1(normalize)
UPGC_PACKED_1(any)
UPGC_PACKED_1(all)
UPGC_PACKED_2(dot)
UPGC_PACKED_2(cross)
UPGC_PACKED_2(distance)
UPGC_PACKED_2(distance_squared)
UPGC_PACKED_2(reflect)
UPGC_PACKED_2(min)
UPGC_PACKED_2(max)
UPGC_PACKED_3(clamp)
#undef UPGC_PACKED_3
#undef UPGC_PACKED_2
#undef UPGC_PACKED_1

#define UPGC_PACKED_NAMES(T)                \
  using packed_##T##2 = packed_vec<T, 2>;   \
  using packed_##T##3 = packed_vec<T, 3>;   \
  using packed_##T##4 = packed_vec<T, 4>;
UPGC_VECTOR_TYPES(UPGC_PACKED_NAMES)
#undef UPGC_PACKED_NAMES

}  // namespace metal

#define UPGC_PACKED_NAMES(T)   \
  using metal::packed_##T##2;  \
  using metal::packed_##T##3;  \
  using metal::packed_##T##4;
UPGC_VECTOR_TYPES(UPGC_PACKED_NAMES)
#undef UPGC_PACKED_NAMES
