#pragma once

#include <string>

namespace upgc {

/// Assembly that clang made of an instrumented module, for x86-64 or arm64 and ELF or Mach-O, with
///   - the place in the kernel text as fourth argument of every call of an `__asan_` function, from the `.loc`
///     directive before it: an access thus knows its place without any debug information at run time;
///   - a gap around every variable in the section `upgc_shared`, and the table `upgc_shared_variables` of them.
std::string sanitized_assembly(const std::string& assembly, const std::string& source_name);

}  // namespace upgc
