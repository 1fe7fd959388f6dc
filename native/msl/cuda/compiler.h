// What the headers of this folder's parent expect of clang, in terms of NVRTC: its type traits, its builtins and its
// half type. NVRTC declares CUDA's own functions before any text; test/native/cuda/stub.h does where clang stands in.
#pragma once

#ifndef __SIZE_TYPE__
#define __SIZE_TYPE__ unsigned long
#define __PTRDIFF_TYPE__ long
#endif

namespace upgc {

template <class A, class B>
constexpr bool same_types = false;
template <class T>
constexpr bool same_types<T, T> = true;
template <class T>
constexpr bool has_const = false;
template <class T>
constexpr bool has_const<const T> = true;
template <class T>
constexpr bool has_volatile = false;
template <class T>
constexpr bool has_volatile<volatile T> = true;
template <class T>
constexpr bool is_array_type = false;
template <class T>
constexpr bool is_array_type<T[]> = true;
template <class T, decltype(sizeof(0)) count>
constexpr bool is_array_type<T[count]> = true;
template <class T>
constexpr bool is_integer_type = false;
template <class T>
constexpr bool is_integer_type<const T> = is_integer_type<T>;
#define UPGC_INTEGER(T) \
  template <>           \
  constexpr bool is_integer_type<T> = true;
UPGC_INTEGER(bool)
UPGC_INTEGER(char)
UPGC_INTEGER(signed char)
UPGC_INTEGER(unsigned char)
UPGC_INTEGER(short)
UPGC_INTEGER(unsigned short)
UPGC_INTEGER(int)
UPGC_INTEGER(unsigned)
UPGC_INTEGER(long)
UPGC_INTEGER(unsigned long)
UPGC_INTEGER(long long)
UPGC_INTEGER(unsigned long long)
#undef UPGC_INTEGER

template <bool condition>
struct When {};
template <>
struct When<true> {
  using yes = void;
};

}  // namespace upgc

#define __is_same(...) upgc::same_types<__VA_ARGS__>
#define __is_void(T) upgc::same_types<T, void>
#define __is_const(T) upgc::has_const<T>
#define __is_volatile(T) upgc::has_volatile<T>
#define __is_array(T) upgc::is_array_type<T>
#define __is_integral(T) upgc::is_integer_type<T>

#define __builtin_inff() __builtin_bit_cast(float, 0x7f800000u)
#define __builtin_nanf(text) __builtin_bit_cast(float, 0x7fc00000u)

#define __builtin_acosf ::acosf
#define __builtin_acoshf ::acoshf
#define __builtin_asinf ::asinf
#define __builtin_asinhf ::asinhf
#define __builtin_atan2f ::atan2f
#define __builtin_atanf ::atanf
#define __builtin_atanhf ::atanhf
#define __builtin_ceilf ::ceilf
#define __builtin_copysignf ::copysignf
#define __builtin_cos ::cos
#define __builtin_cosf ::cosf
#define __builtin_coshf ::coshf
#define __builtin_fabsf ::fabsf
#define __builtin_floorf ::floorf
#define __builtin_fmaf ::fmaf
#define __builtin_fmaxf ::fmaxf
#define __builtin_fminf ::fminf
#define __builtin_fmodf ::fmodf
#define __builtin_frexpf ::frexpf
#define __builtin_ilogbf ::ilogbf
#define __builtin_ldexpf ::ldexpf
#define __builtin_log10f ::log10f
#define __builtin_log2f ::log2f
#define __builtin_powf ::powf
#define __builtin_rintf ::rintf
#define __builtin_roundf ::roundf
#define __builtin_sin ::sin
#define __builtin_sinf ::sinf
#define __builtin_sinhf ::sinhf
#define __builtin_sqrtf ::sqrtf
#define __builtin_tanf ::tanf
#define __builtin_truncf ::truncf

#define __builtin_popcountl(x) ::__popcll(x)
#define __builtin_clzl(x) ::__clzll(x)
#define __builtin_ctzl(x) (::__ffsll(x) - 1)
#define __builtin_bitreverse64(x) ::__brevll(x)
#define __builtin_isnan(x) ((x) != (x))
#define __builtin_isinf(x) (::fabsf(x) == __builtin_inff())
#define __builtin_isfinite(x) (::fabsf(x) < __builtin_inff())
#define __builtin_signbit(x) (__builtin_bit_cast(unsigned, x) >> 31 != 0)
#define __builtin_add_overflow upgc::add_overflow
#define __builtin_sub_overflow upgc::sub_overflow

namespace upgc {

/// The sum, modulo 2^bits; returns whether it is another number than the sum.
template <class T>
inline bool add_overflow(T a, T b, T* sum) {
  *sum = T((unsigned long)(a) + (unsigned long)(b));
  return T(-1) < T(0) ? T((a ^ *sum) & (b ^ *sum)) < T(0) : *sum < a;
}
template <class T>
inline bool sub_overflow(T a, T b, T* difference) {
  *difference = T((unsigned long)(a) - (unsigned long)(b));
  return T(-1) < T(0) ? T((a ^ b) & (a ^ *difference)) < T(0) : a < b;
}

}  // namespace upgc
