#pragma once

#include "../program_spec.h"
#include "tokens.h"

namespace upgc {

/// The text of the spec with no directives left but #include <metal_...> and #pragma. Text that has no others is used
/// as it is; only otherwise is clang asked to preprocess. Macros of Metal's headers, like INFINITY, are not expanded.
/// UPGC_COMPILE, and UPGC_NO_CLANG or UPGC_IO when it takes clang.
MetalText preprocess(const ProgramSpec& spec);

}  // namespace upgc
