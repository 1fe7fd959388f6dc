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
#ifdef UPGC_SANITIZE
#define kernel static __attribute__((noinline))
#else
#define kernel static inline __attribute__((always_inline))
#endif
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
#ifdef UPGC_SANITIZE
// Sanitized programs run one at a time, and the runtime finds these variables in their section. `used`: the compiler
// must not know that nothing else writes them, or it would replace reads of a variable that is never written.
#ifdef __APPLE__
#define upgc_shared static __attribute__((used, aligned(16), section("__DATA,upgc_shared")))
#else
#define upgc_shared static __attribute__((used, aligned(16), section("upgc_shared")))
#endif
#elif defined(UPGC_CUDA)
#define upgc_shared __shared__
#elif UPGC_SIMD_WIDTH == 1
#define upgc_shared
#else
#define upgc_shared static thread_local
#endif
