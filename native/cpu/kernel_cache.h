#pragma once

#include "../program_spec.h"
#include "module.h"

namespace upgc {

/// The compiled kernels of a plan, out of the cache folder when they are there: then no compiler runs. UPGC_NO_CLANG,
/// UPGC_COMPILE, UPGC_IO.
///
/// The cache has one folder per 64-bit hash of everything that goes into a compilation:
///   key          that everything, as text; a hit needs it identical, so a hash collision only costs a compilation
///   kernels.so   the module
///   checksum     of kernels.so: loading a truncated library could kill the process
/// Only the user can write any of it, or it is refused.
Module compile_kernels(const ProgramSpec& spec);

}  // namespace upgc
