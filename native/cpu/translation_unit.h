#pragma once

#include <string>

#include "../program_spec.h"

namespace upgc {

/// The text as C++ can read it, with every line and column where it was:
///   - `[[...]]` attributes become spaces;
///   - `threadgroup` before a variable, as opposed to a pointer or reference, becomes `upgc_shared`.
/// Comments and string literals are left alone. Throws UPGC_COMPILE for an attribute without an end.
std::string metal_to_cpp(const std::string& text, const std::string& source_name);

/// The C++ text that gives a kernel module: the Metal text between our headers and a table of its kernels.
std::string translation_unit(const ProgramSpec& spec);

}  // namespace upgc
