#pragma once

#include <string>

#include "../program_spec.h"

namespace upgc {

/// The C++ that NVRTC compiles: the text lowered as for the CPU device, and a __global__ function for each kernel, named
/// by `cuda_name`. UPGC_COMPILE as on the CPU device; UPGC_BAD_PLAN for programs that this device does not run.
std::string cuda_translation_unit(const ProgramSpec& spec);

/// What the __global__ function of a kernel is called.
std::string cuda_name(const Kernel& kernel);

/// Whether the grid of every dispatch of the kernel is launched along x alone: along y and z a GPU takes only 65535
/// threadgroups; along x, as many as any plan may have.
bool is_flat(const ProgramSpec& spec, size_t kernel);

}  // namespace upgc
