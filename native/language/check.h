#pragma once

#include "../program_spec.h"
#include "findings.h"

namespace upgc {

/// What Apple's compiler or run time would refuse in the spec's text, by line: first what its tokens tell
/// (check_kernels.cc, check_language.cc), then what clang finds when it reads the text as C++ with address spaces
/// (check_types.cc). The text may be anybody's; this takes linear time but for clang, which is stopped after some
/// seconds. UPGC_NO_CLANG and UPGC_IO when clang cannot be run.
std::vector<Finding> check_kernels(const ProgramSpec& spec);

}  // namespace upgc
