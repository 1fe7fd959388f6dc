#pragma once

#include <string>

#include "../program_spec.h"

namespace upgc {

/// The C++ text that gives a kernel module: the Metal text between our headers and a table of its kernels.
std::string translation_unit(const ProgramSpec& spec);

}  // namespace upgc
