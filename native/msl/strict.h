// The strict check compiles Metal text as OpenCL C++, which has address spaces, and only for its errors (see
// native/language/check.h). With UPGC_STRICT defined the other headers leave out what OpenCL C++ has not.
#pragma once

#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#pragma OPENCL EXTENSION __cl_clang_function_pointers : enable
#pragma OPENCL EXTENSION __cl_clang_variadic_functions : enable
#pragma OPENCL EXTENSION __cl_clang_bitfields : enable

// Types of OpenCL that clang declares before the first line.
#define atomic_bool upgc_atomic_bool
#define atomic_float upgc_atomic_float
#define atomic_int upgc_atomic_int
#define atomic_long upgc_atomic_long
#define atomic_uint upgc_atomic_uint
#define atomic_ulong upgc_atomic_ulong

// What a string literal becomes.
#define UPGC_STRING const __constant char*
