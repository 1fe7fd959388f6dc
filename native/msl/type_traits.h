// <metal_type_traits>: the traits that kernels and these headers need, under Metal's names.
#pragma once

using size_t = __SIZE_TYPE__;
using ptrdiff_t = __PTRDIFF_TYPE__;

namespace metal {

using ::ptrdiff_t;
using ::size_t;

struct bfloat;

template <class T, T constant_value>
struct integral_constant {
  using value_type = T;
  using type = integral_constant;
  static constexpr T value = constant_value;
  constexpr operator T() const { return value; }
  constexpr T operator()() const { return value; }
};
template <bool condition>
using bool_constant = integral_constant<bool, condition>;
using true_type = bool_constant<true>;
using false_type = bool_constant<false>;

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

template <class... Ts>
struct make_void {
  using type = void;
};
template <class... Ts>
using void_t = typename make_void<Ts...>::type;

/// Keeps a parameter out of template argument deduction, so that scalars convert to the vector's element type.
template <class T>
struct type_identity {
  using type = T;
};
template <class T>
using type_identity_t = typename type_identity<T>::type;

template <class T>
T&& declval();

// Transformations: NAME<Pattern>::type is Result, and any other type stays as it is.
#define UPGC_TRANSFORMATION(name, Pattern, Result) \
  template <class T>                               \
  struct name {                                    \
    using type = T;                                \
  };                                               \
  template <class T>                               \
  struct name<Pattern> {                           \
    using type = Result;                           \
  };                                               \
  template <class T>                               \
  using name##_t = typename name<T>::type;
UPGC_TRANSFORMATION(remove_const, const T, T)
UPGC_TRANSFORMATION(remove_volatile, volatile T, T)
UPGC_TRANSFORMATION(remove_pointer, T*, T)
UPGC_TRANSFORMATION(remove_extent, T[], T)
#undef UPGC_TRANSFORMATION

template <class T>
struct remove_reference {
  using type = T;
};
template <class T>
struct remove_reference<T&> {
  using type = T;
};
template <class T>
struct remove_reference<T&&> {
  using type = T;
};
template <class T>
using remove_reference_t = typename remove_reference<T>::type;
template <class T>
using remove_cv = remove_const<remove_volatile_t<T>>;
template <class T>
using remove_cv_t = typename remove_cv<T>::type;
template <class T>
using remove_cvref_t = remove_cv_t<remove_reference_t<T>>;
template <class T>
struct decay {
  using type = remove_cvref_t<T>;
};
template <class T>
using decay_t = typename decay<T>::type;
template <class T>
struct add_const {
  using type = const T;
};
template <class T>
using add_const_t = const T;
/// Address spaces mean nothing here.
template <class T>
using remove_addrspace = type_identity<T>;
template <class T>
using remove_addrspace_t = T;

namespace detail {
template <class T>
constexpr bool is_float =
    __is_same(T, float) || __is_same(T, _Float16) || __is_same(T, bfloat);
template <class T>
constexpr bool is_pointer = false;
template <class T>
constexpr bool is_pointer<T*> = true;
template <class T>
constexpr bool is_reference = false;
template <class T>
constexpr bool is_reference<T&> = true;
template <class T>
constexpr bool is_reference<T&&> = true;
template <class T, bool integral>
constexpr bool is_signed = false;
template <class T>
constexpr bool is_signed<T, true> = T(-1) < T(0);
}  // namespace detail

#define UPGC_TRAIT(name, value)                 \
  template <class T>                            \
  constexpr bool name##_v = value;              \
  template <class T>                            \
  struct name : bool_constant<name##_v<T>> {};
UPGC_TRAIT(is_void, __is_void(T))
UPGC_TRAIT(is_integral, __is_integral(T))
UPGC_TRAIT(is_floating_point, detail::is_float<remove_cv_t<T>>)
UPGC_TRAIT(is_arithmetic, __is_integral(T) || is_floating_point_v<T>)
UPGC_TRAIT(is_scalar, is_arithmetic_v<T> || __is_enum(T) || detail::is_pointer<remove_cv_t<T>>)
UPGC_TRAIT(is_signed, (detail::is_signed<T, __is_integral(T)>) || is_floating_point_v<T>)
UPGC_TRAIT(is_unsigned, __is_integral(T) && !is_signed_v<T>)
UPGC_TRAIT(is_enum, __is_enum(T))
UPGC_TRAIT(is_class, __is_class(T))
UPGC_TRAIT(is_union, __is_union(T))
UPGC_TRAIT(is_array, __is_array(T))
UPGC_TRAIT(is_pointer, detail::is_pointer<remove_cv_t<T>>)
UPGC_TRAIT(is_reference, detail::is_reference<T>)
UPGC_TRAIT(is_const, __is_const(T))
UPGC_TRAIT(is_volatile, __is_volatile(T))
UPGC_TRAIT(is_trivially_copyable, __is_trivially_copyable(T))
UPGC_TRAIT(is_empty, __is_empty(T))
#undef UPGC_TRAIT

#define UPGC_RELATION(name, expression)              \
  template <class A, class B>                        \
  constexpr bool name##_v = expression;              \
  template <class A, class B>                        \
  struct name : bool_constant<name##_v<A, B>> {};
UPGC_RELATION(is_same, __is_same(A, B))
UPGC_RELATION(is_base_of, __is_base_of(A, B))
UPGC_RELATION(is_convertible, __is_convertible_to(A, B))
#undef UPGC_RELATION

template <class T, class... Arguments>
constexpr bool is_constructible_v = __is_constructible(T, Arguments...);
template <class T, class... Arguments>
struct is_constructible : bool_constant<is_constructible_v<T, Arguments...>> {};

template <class... Traits>
struct conjunction : bool_constant<(true && ... && bool(Traits::value))> {};
template <class... Traits>
constexpr bool conjunction_v = conjunction<Traits...>::value;
template <class... Traits>
struct disjunction : bool_constant<(false || ... || bool(Traits::value))> {};
template <class... Traits>
constexpr bool disjunction_v = disjunction<Traits...>::value;
template <class Trait>
struct negation : bool_constant<!bool(Trait::value)> {};

namespace detail {
template <class T>
struct Signedness;
#define UPGC_SIGNEDNESS(S, U)                           \
  template <>                                           \
  struct Signedness<S> {                                \
    using make_signed = S;                              \
    using make_unsigned = U;                            \
  };                                                    \
  template <>                                           \
  struct Signedness<U> : Signedness<S> {};
UPGC_SIGNEDNESS(signed char, unsigned char)
UPGC_SIGNEDNESS(short, unsigned short)
UPGC_SIGNEDNESS(int, unsigned)
UPGC_SIGNEDNESS(long, unsigned long)
UPGC_SIGNEDNESS(long long, unsigned long long)
#undef UPGC_SIGNEDNESS
template <>
struct Signedness<char> : Signedness<signed char> {};
}  // namespace detail

template <class T>
struct make_signed {
  using type = typename detail::Signedness<T>::make_signed;
};
template <class T>
using make_signed_t = typename detail::Signedness<T>::make_signed;
template <class T>
struct make_unsigned {
  using type = typename detail::Signedness<T>::make_unsigned;
};
template <class T>
using make_unsigned_t = typename detail::Signedness<T>::make_unsigned;

}  // namespace metal
