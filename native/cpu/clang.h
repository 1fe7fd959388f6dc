#pragma once

#include <string>
#include <vector>

#include "../program_spec.h"

namespace upgc {

/// A clang that can compile kernels.
struct Clang {
  std::string path;
  bool apple = false;
  /// Whether the linker lld is there; it links in half the time of GNU ld.
  bool lld = false;
};

/// `spec.clang`, or the first suitable clang on the spec's PATH. UPGC_NO_CLANG when there is none. A compiler that was
/// found is remembered for the life of the process.
Clang find_clang(const ProgramSpec& spec);

/// The files that `find_clang` would run to find out, best first.
std::vector<std::string> installed_compilers(const ProgramSpec& spec);

/// What tells a compiler from any other that may come to lie at the same path, without running it.
std::string compiler_identity(const std::string& path, const ProgramSpec& spec);

}  // namespace upgc
