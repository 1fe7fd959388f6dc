// Metal's keywords. Address spaces mean nothing on a CPU, where one address space holds everything.
#pragma once

#define __METAL__ 1
#define __METAL_VERSION__ 310
#define __METAL_MACOS__ 1
#define __HAVE_BFLOAT__ 1
#define __HAVE_SIMDGROUP_MATRIX__ 1

#define METAL_FUNC inline __attribute__((always_inline))
/// `coherent(system) device float*`: what other threads wrote is seen here anyway.
#define coherent(scope)
#define kernel static inline __attribute__((always_inline))
#ifdef UPGC_STRICT
#include "strict_language.h"
#else
#define device
#define threadgroup
#define thread
#define constant const
#endif

// The loader writes this for `threadgroup` before a variable in a function. All lanes of a threadgroup are on one OS
// thread, which runs one threadgroup at a time, so that is what a thread_local is shared by.
#if UPGC_SIMD_WIDTH == 1
#define upgc_shared
#else
#define upgc_shared static thread_local
#endif
