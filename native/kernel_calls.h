// How the translation unit of a device refers to the kernels of a text and to the arguments that the plan lists.
#pragma once

#include <string>
#include <vector>

#include "language/kernels.h"
#include "program_spec.h"

namespace upgc {

/// The type of native/msl/arguments.h that makes the `index`-th argument of the kernel.
std::string argument_source(const Kernel& kernel, size_t index);

/// How a table of kernels refers to a kernel, and what must stand before the table for that: names in a namespace,
/// which may be one without a name, are looked up where they were written.
struct Reference {
  std::string expression;
  std::string preparation;
  /// Whether it calls `wait_for_inputs` itself, before it reads what earlier kernels may have written.
  bool waits;
};

/// A reference for each kernel of the spec. UPGC_COMPILE when the text has no such kernel.
std::vector<Reference> refer_to_kernels(const ProgramSpec& spec, const MetalText& text, const Syntax& syntax);

}  // namespace upgc
