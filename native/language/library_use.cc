#include "library_use.h"

#include <set>

#include "../error.h"

namespace upgc {
namespace {

/// A text needs a part of native/msl/msl.h when one of its words contains one of these.
struct Part {
  const char* name;
  std::vector<const char*> words;
};

const Part parts[] = {
    {"ATOMIC", {"atomic", "memory_order", "thread_scope"}},
    {"BFLOAT", {"bfloat", "_bf", "BFLT_"}},
    {"BUILTINS", {"__metal_", "__METAL_"}},
    {"MATRIX", {"2x2", "2x3", "2x4", "3x2", "3x3", "3x4", "4x2", "4x3", "4x4", "matrix", "transpose", "determinant"}},
    {"PACK", {"pack_"}},
    {"PACKED", {"packed_"}},
    {"QUAD", {"quad_"}},
    {"SIMDGROUP_MATRIX", {"8x8", "simdgroup_matrix"}},
};

bool needs(const Part& part, std::string_view word) {
  for (const char* text : part.words)
    if (word.find(text) != std::string_view::npos) return true;
  return false;
}

}  // namespace

bool is_swizzle(std::string_view word) {
  return word.size() >= 2 && word.size() <= 4 &&
         (word.find_first_not_of("xyzw") == std::string_view::npos ||
          word.find_first_not_of("rgba") == std::string_view::npos);
}

std::string library_use(const MetalText& text) {
  std::set<std::string> swizzles, used;
  std::set<std::string_view> words;
  std::string_view before;
  for (const Token& token : text.tokens()) {
    const std::string_view spelling = text.spelling(token);
    if ((before == "." || before == "->") && is_swizzle(spelling)) swizzles.emplace(spelling);
    before = spelling;
    // 1.5bf is a bfloat, too.
    const bool bfloat = token.kind == TokenKind::number && spelling.size() > 2 &&
                        spelling.substr(spelling.size() - 2) == "bf" && spelling[1] != 'x' && spelling[1] != 'X';
    if (bfloat) used.insert("BFLOAT");
    if (token.kind == TokenKind::word) words.insert(spelling);
  }
  for (const std::string_view word : words)
    for (const Part& part : parts)
      if (needs(part, word)) used.insert(part.name);
  std::string macros = "#define UPGC_SELECTS_PARTS\n", list;
  for (const std::string& name : used) macros += concat("#define UPGC_USES_", name, "\n");
  for (const std::string& swizzle : swizzles) list += concat(" M(", swizzle, ")");
  return list.empty() ? macros : concat(macros, "#define UPGC_SWIZZLES(M)", list, "\n");
}

}  // namespace upgc
