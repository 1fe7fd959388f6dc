#pragma once

#include <string>
#include <vector>

#include "tokens.h"

namespace upgc {

/// A preprocessor directive of a text as the user wrote it.
struct Directive {
  /// `include`, `pragma`, ...
  std::string name;
  /// What follows, with comments and line splices taken out.
  std::string rest;
  /// From the # to the end of the last line.
  size_t begin, end;
  uint32_t line, column;
};

struct RawText {
  std::vector<Directive> directives;
  /// Whether the text means something only to a preprocessor: line splices, _Pragma, any directive but #include
  /// and #pragma.
  bool needs_preprocessor = false;
};

/// Finds the directives of a text that no preprocessor has seen, and checks them: UPGC_COMPILE for one that could read
/// a file other than Metal's headers or change what lies outside of the text, and for characters that could hide one.
RawText read_directives(const std::string& name, const std::string& text);

/// Whether what follows `#pragma` is a pragma that Metal text may contain.
bool is_known_pragma(std::string_view rest);
constexpr const char* known_pragmas = "unroll, nounroll, unused, mark, once, METAL, clang loop, clang fp and clang diagnostic";

}  // namespace upgc
