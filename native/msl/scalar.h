// Scalar types, their literals, and as_type.
#pragma once

#include "type_traits.h"

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
#ifndef UPGC_STRICT  // where half is a keyword
using half = _Float16;
#endif
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long;
using uint8_t = uchar;
using uint16_t = ushort;
using uint32_t = uint;
using uint64_t = ulong;

#ifndef UPGC_STRICT
constexpr half operator""h(long double value) { return half(value); }
constexpr half operator""h(unsigned long long value) { return half(value); }
#endif

namespace metal {

#ifndef UPGC_STRICT
using ::half;
#endif
using ::int16_t;
using ::int32_t;
using ::int64_t;
using ::int8_t;
using ::uchar;
using ::uint;
using ::uint16_t;
using ::uint32_t;
using ::uint64_t;
using ::uint8_t;
using ::ulong;
using ::ushort;

/// The same bits as another type of the same size.
template <class To, class From>
UPGC_INLINE constexpr To as_type(From from) {
  static_assert(sizeof(To) == sizeof(From), "as_type: the two types must have the same size");
  return __builtin_bit_cast(To, from);
}

/// A value that is the same in all threads: nothing to know here.
template <class T>
using uniform = T;
template <class T>
UPGC_INLINE constexpr T make_uniform(T value) { return value; }

}  // namespace metal

using metal::as_type;
