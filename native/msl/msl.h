// What every kernel text sees on the CPU device, and with UPGC_CUDA defined on the CUDA device: the Metal standard library
// for compute kernels. The folder cuda/ has what differs there.
//
// Parts that few kernels need cost 5 to 20 ms each. With UPGC_SELECTS_PARTS defined, only those are there whose
// UPGC_USES_<PART> is defined; a text needs a part when one of its words contains
//
//   UPGC_USES_ATOMIC            atomic, memory_order, thread_scope
//   UPGC_USES_BFLOAT            bfloat, _bf, BFLT_
//   UPGC_USES_BUILTINS          __metal_, __METAL_
//   UPGC_USES_MATRIX            2x2, 2x3, 2x4, 3x2, 3x3, 3x4, 4x2, 4x3, 4x4, matrix, transpose, determinant
//   UPGC_USES_PACK              pack_
//   UPGC_USES_PACKED            packed_
//   UPGC_USES_QUAD              quad_
//   UPGC_USES_SIMDGROUP_MATRIX  8x8, simdgroup_matrix
//
// UPGC_SWIZZLES is for vector.h. `language.h` comes last because its macros (`thread`, `device`, ...) would rewrite the
// headers before it.
#pragma once

#ifndef UPGC_SELECTS_PARTS
#define UPGC_USES_ATOMIC
#define UPGC_USES_BFLOAT
#define UPGC_USES_BUILTINS
#define UPGC_USES_MATRIX
#define UPGC_USES_PACK
#define UPGC_USES_PACKED
#define UPGC_USES_QUAD
#define UPGC_USES_SIMDGROUP_MATRIX
#endif

#ifdef UPGC_STRICT
#include "strict.h"
#endif
#ifdef UPGC_CUDA
#include "cuda/compiler.h"
#include "cuda/half.h"
#else
#include "abi.h"
#endif
#ifdef UPGC_SANITIZE
#include "sanitize.h"
#endif
#include "array.h"
#include "type_traits.h"
#include "scalar.h"
#include "vector.h"
#include "limits.h"
#include "integer.h"
#include "elementary.h"
#include "math.h"
#include "simdgroup.h"
#ifdef UPGC_USES_BFLOAT
#include "bfloat.h"
#endif
#ifdef UPGC_USES_PACKED
#include "packed.h"
#endif
#ifdef UPGC_USES_MATRIX
#include "matrix.h"
#endif
#ifdef UPGC_USES_PACK
#include "pack.h"
#endif
#ifdef UPGC_USES_ATOMIC
#include "atomic.h"
#endif
#ifdef UPGC_USES_SIMDGROUP_MATRIX
#include "simdgroup_matrix.h"
#endif
#ifdef UPGC_USES_BUILTINS
#include "builtins.h"
#endif
#ifndef UPGC_STRICT
#include "entry.h"
#endif
#include "language.h"
