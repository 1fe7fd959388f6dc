#pragma once

#include <string>

#include "../program_spec.h"

namespace upgc {

/// A clang that can compile kernels.
struct Clang {
  std::string path;
  /// All that `--version` printed: part of the cache key.
  std::string version;
  bool apple = false;
  /// Whether the linker lld is there; it links in half the time of GNU ld.
  bool lld = false;
};

/// `spec.clang`, or the first suitable clang on the spec's PATH. UPGC_NO_CLANG when there is none. A compiler that was
/// found is remembered for the life of the process.
Clang find_clang(const ProgramSpec& spec);

}  // namespace upgc
