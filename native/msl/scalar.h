// Scalar types, the few type traits that kernels and these headers need, and as_type.
#pragma once

#ifdef UPGC_SANITIZE
// nodebug: what a function of these headers accesses then belongs to the line of the kernel that calls it.
#define UPGC_INLINE inline __attribute__((always_inline, nodebug))
#else
#define UPGC_INLINE inline __attribute__((always_inline))
#endif

using uchar = unsigned char;
using ushort = unsigned short;
using uint = unsigned int;
using ulong = unsigned long;
using half = _Float16;
using size_t = __SIZE_TYPE__;
using ptrdiff_t = __PTRDIFF_TYPE__;
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long;
using uint8_t = uchar;
using uint16_t = ushort;
using uint32_t = uint;
using uint64_t = ulong;

constexpr half operator""h(long double value) { return half(value); }
constexpr half operator""h(unsigned long long value) { return half(value); }

namespace metal {

using ::half;
using ::ptrdiff_t;
using ::size_t;
using ::uchar;
using ::uint;
using ::ulong;
using ::ushort;

template <class A, class B>
constexpr bool is_same_v = __is_same(A, B);
template <class T>
constexpr bool is_integral_v = __is_integral(T);
template <class T>
constexpr bool is_floating_point_v = __is_same(T, float) || __is_same(T, half);

template <bool condition, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> {
  using type = T;
};
template <bool condition, class T = void>
using enable_if_t = typename enable_if<condition, T>::type;

template <bool condition, class T, class F>
struct conditional {
  using type = T;
};
template <class T, class F>
struct conditional<false, T, F> {
  using type = F;
};
template <bool condition, class T, class F>
using conditional_t = typename conditional<condition, T, F>::type;

/// Keeps a parameter out of template argument deduction, so that scalars convert to the vector's element type.
template <class T>
struct type_identity {
  using type = T;
};
template <class T>
using type_identity_t = typename type_identity<T>::type;

/// The same bits as another type of the same size.
template <class To, class From>
UPGC_INLINE To as_type(From from) {
  static_assert(sizeof(To) == sizeof(From), "as_type: the two types must have the same size");
  return __builtin_bit_cast(To, from);
}

}  // namespace metal

using metal::as_type;
