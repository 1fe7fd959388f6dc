// vec<T, N> as a structure: NVRTC has no vectors that compute. Swizzles of several components are functions, which the
// loader calls for those of the text.
#pragma once

#include "../scalar.h"

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

template <class T>
UPGC_INLINE constexpr T to_lane(T value) { return value; }

/// Vectors of half and bfloat, which are classes here, take numbers of other types as well.
template <class T, class Scalar>
constexpr bool also_from = __is_class(T) && (is_integral_v<Scalar> || is_same_v<Scalar, float>);

/// Two components at once: halves have an instruction for that.
template <class T, class U>
UPGC_INLINE constexpr void set_pair(T*, U, U) {}
UPGC_INLINE void set_pair(half* to, float x, float y) {
  unsigned pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y), "f"(x));
  to[0] = __builtin_bit_cast(half, (unsigned short)pair);
  to[1] = __builtin_bit_cast(half, (unsigned short)(pair >> 16));
}

/// How many components an argument of a constructor of vec<T, ...> stands for.
template <class T, class Part>
constexpr int component_count = __is_constructible(T, Part) ? 1 : -100;
template <class T, int N>
constexpr int component_count<T, vec<T, N>> = N;
template <class T, int N, class Vector>
constexpr int component_count<T, packed_vec<T, N, Vector>> = N;

/// The component that a swizzle's `i`-th letter names; -1 behind its end.
constexpr int component(const char* swizzle, unsigned i) {
  for (unsigned k = 0; k <= i; k++)
    if (swizzle[k] == 0) return -1;
  switch (swizzle[i]) {
    case 'x': case 'r': return 0;
    case 'y': case 'g': return 1;
    case 'z': case 'b': return 2;
    default: return 3;
  }
}

/// The components a, b ... of a vector.
template <class Vector, int a, int b, int c, int d>
struct Swizzle {
  static constexpr int size = c < 0 ? 2 : d < 0 ? 3 : 4;
  static constexpr bool distinct = a != b && (c < 0 || (c != a && c != b)) && (d < 0 || (d != a && d != b && d != c));
  using Value = vec<typename Vector::value_type, size>;

  UPGC_INLINE Value get() const {
    static_assert(a < Vector::size && b < Vector::size && c < Vector::size && d < Vector::size,
                  "the vector has no such component");
    Value result;
    result[0] = vector[a];
    result[1] = vector[b];
    if constexpr (c >= 0) result[2] = vector[c];
    if constexpr (d >= 0) result[3] = vector[d];
    return result;
  }
  UPGC_INLINE void operator=(Value value) {
    static_assert(distinct, "a swizzle that names a component twice cannot be assigned to");
    vector[a] = value[0];
    vector[b] = value[1];
    if constexpr (c >= 0) vector[c] = value[2];
    if constexpr (d >= 0) vector[d] = value[3];
  }
#define UPGC_ASSIGN(op) \
  UPGC_INLINE void operator op##=(Value value) { *this = get() op value; }
  UPGC_ASSIGN(+)
  UPGC_ASSIGN(-)
  UPGC_ASSIGN(*)
  UPGC_ASSIGN(/)
  UPGC_ASSIGN(%)
  UPGC_ASSIGN(&)
  UPGC_ASSIGN(|)
  UPGC_ASSIGN(^)
  UPGC_ASSIGN(<<)
  UPGC_ASSIGN(>>)
#undef UPGC_ASSIGN

  Vector& vector;
};

#ifndef UPGC_SWIZZLES
#define UPGC_SWIZZLES(M)
#endif

}  // namespace detail

#define UPGC_COMPONENTS(name)                                                                              \
  detail::component(#name, 0), detail::component(#name, 1), detail::component(#name, 2), detail::component(#name, 3)
/// Members of vectors and of packed vectors.
#define UPGC_SWIZZLE(name)                                                                                 \
  UPGC_INLINE auto upgc_get_##name() const {                                                               \
    const vec<T, size> self(*this);                                                                        \
    return detail::Swizzle<const vec<T, size>, UPGC_COMPONENTS(name)>{self}.get();                         \
  }                                                                                                        \
  UPGC_INLINE auto upgc_put_##name() {                                                                     \
    auto& self = *this;                                                                                    \
    return detail::Swizzle<remove_reference_t<decltype(self)>, UPGC_COMPONENTS(name)>{self};               \
  }

// `allowed` says for which component types Metal has the operator.
#define UPGC_VECTOR_BINARY(op, allowed)                                                     \
  friend UPGC_INLINE constexpr vec operator op(vec a, vec b) {                              \
    static_assert(allowed, "Metal has no operator " #op " for vectors of this type");       \
    for (int i = 0; i < size; i++) a.lanes[i] = T(a.lanes[i] op b.lanes[i]);                \
    return a;                                                                               \
  }                                                                                         \
  UPGC_INLINE constexpr vec& operator op##=(vec b) { return *this = *this op b; }

#define UPGC_VECTOR_COMPARE(op)                                                             \
  friend UPGC_INLINE vec<bool, size> operator op(vec a, vec b) {                            \
    vec<bool, size> result;                                                                 \
    for (int i = 0; i < size; i++) result.lanes[i] = a.lanes[i] op b.lanes[i];              \
    return result;                                                                          \
  }

// Friends of a class template are compiled only when used.
#define UPGC_VECTOR_MEMBERS(N)                                                                              \
  using value_type = T;                                                                                     \
  vec() = default;                                                                                          \
  UPGC_INLINE constexpr vec(const vec& other) = default;                                                    \
  UPGC_INLINE constexpr vec& operator=(const vec& other) = default;                                         \
  UPGC_INLINE constexpr vec(T all) : lanes{} {                                                              \
    for (int i = 0; i < N; i++) lanes[i] = all;                                                             \
  }                                                                                                         \
  template <class Scalar, class = enable_if_t<detail::also_from<T, Scalar>>>                                \
  UPGC_INLINE constexpr vec(Scalar all) : vec(T(all)) {}                                                    \
  template <class U>                                                                                        \
  UPGC_INLINE constexpr explicit vec(vec<U, N> other) : lanes{} {                                           \
    if (N != 3 && is_same_v<T, half> && is_same_v<U, float> && !__builtin_is_constant_evaluated())          \
      for (int i = 0; i < N; i += 2) detail::set_pair(&lanes[i], other.lanes[i], other.lanes[i + 1]);       \
    else                                                                                                    \
      for (int i = 0; i < N; i++) lanes[i] = T(other.lanes[i]);                                             \
  }                                                                                                         \
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
    if constexpr (__is_constructible(T, Part)) lanes[at++] = T(part);                                       \
    else for (int i = 0; i < Part::size; i++) lanes[at++] = part[i];                                        \
  }                                                                                                         \
  UPGC_INLINE constexpr T& operator[](int i) { return lanes[i]; }                                           \
  UPGC_INLINE constexpr const T& operator[](int i) const { return lanes[i]; }                               \
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
  UPGC_VECTOR_COMPARE(&&)                                                                                   \
  UPGC_VECTOR_COMPARE(||)                                                                                   \
  UPGC_INLINE constexpr vec operator+() const { return *this; }                                             \
  UPGC_INLINE constexpr vec operator-() const {                                                             \
    vec result = *this;                                                                                     \
    for (int i = 0; i < N; i++) result.lanes[i] = T(-lanes[i]);                                             \
    return result;                                                                                          \
  }                                                                                                         \
  UPGC_INLINE constexpr vec operator~() const {                                                             \
    static_assert(is_integral_v<T> && !is_same_v<T, bool>, "Metal has no operator ~ for vectors of this type"); \
    vec result = *this;                                                                                     \
    for (int i = 0; i < N; i++) result.lanes[i] = T(~lanes[i]);                                             \
    return result;                                                                                          \
  }                                                                                                         \
  UPGC_INLINE vec<bool, N> operator!() const {                                                              \
    vec<bool, N> result;                                                                                    \
    for (int i = 0; i < N; i++) result.lanes[i] = lanes[i] == T(0);                                         \
    return result;                                                                                          \
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
struct alignas(2 * sizeof(T)) vec<T, 2> {
  static constexpr int size = 2;
  union {
    T lanes[2];
    struct {
      T x, y;
    };
    struct {
      T r, g;
    };
  };
  UPGC_VECTOR_MEMBERS(2)
  UPGC_INLINE constexpr vec(T a, T b) : lanes{a, b} {}
};

/// As large as one of four.
template <class T>
struct alignas(4 * sizeof(T)) vec<T, 3> {
  static constexpr int size = 3;
  union {
    T lanes[3];
    struct {
      T x, y, z;
    };
    struct {
      T r, g, b;
    };
  };
  UPGC_VECTOR_MEMBERS(3)
  UPGC_INLINE constexpr vec(T a, T b, T c) : lanes{a, b, c} {}
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
  static constexpr int size = 4;
  union {
    T lanes[4];
    struct {
      T x, y, z, w;
    };
    struct {
      T r, g, b, a;
    };
  };
  UPGC_VECTOR_MEMBERS(4)
  UPGC_INLINE constexpr vec(T a, T b, T c, T d) : lanes{a, b, c, d} {}
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
