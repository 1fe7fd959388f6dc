#pragma once

#include <string>

#include "../program_spec.h"

namespace upgc::cuda {

/// The compiled kernels of a plan for GPUs of this compute capability, e.g. 90, out of the cache folder when they are
/// there. UPGC_NO_CUDA, UPGC_COMPILE, UPGC_IO.
///
/// The cache has one file per 64-bit hash of everything that goes into a compilation: that everything, as text, and the
/// cubin behind it, with their sizes and a checksum before them. A file that is not as it should be is written anew.
std::string compile_cubin(const ProgramSpec& spec, int capability);

}  // namespace upgc::cuda
