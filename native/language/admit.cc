#include "admit.h"

#include <algorithm>
#include <map>
#include <set>

#include "../error.h"
#include "directives.h"
#include "positions.h"

namespace upgc {
namespace {

const std::set<std::string_view> reserved_but_fine = {
    "__METAL__", "__HAVE_BFLOAT__", "__LINE__", "__FILE__", "__restrict", "__restrict__",
    "__attribute__", "__builtin_clz", "__builtin_ctz", "__builtin_popcount", "__builtin_expect",
};

const std::set<std::string_view> gnu_attributes = {"always_inline", "noinline", "unused", "packed", "aligned", "const",
                                                   "pure"};

/// Keywords of C++ that Metal has not, and what to do about each.
const std::map<std::string_view, const char*> refused_words = {
    {"asm", "is not Metal: a kernel cannot contain assembly; write it in Metal"},
    {"extern", "is not Metal: the text is complete in itself; define the function or constant in it"},
    {"throw", "is not Metal: there are no exceptions; write the failure into a buffer"},
    {"try", "is not Metal: there are no exceptions; remove it"},
    {"catch", "is not Metal: there are no exceptions; remove it"},
    {"new", "is not Metal: there is no heap; use a buffer or an array"},
    {"delete", "is not Metal: there is no heap; remove it"},
    {"typeid", "is not Metal: there are no types at run time; remove it"},
    {"dynamic_cast", "is not Metal: there are no types at run time; use static_cast"},
    {"thread_local", "is not Metal: variables of a function belong to their thread; remove it"},
};

bool is_reserved(std::string_view word) {
  const bool capital = word.size() > 1 && word[0] == '_' && word[1] >= 'A' && word[1] <= 'Z';
  if (word.find("__") == std::string_view::npos && !capital) return false;
  // `__metal_fabs`, `__METAL_MAYBE_FAST_MATH__` and their kin are Apple's: no name of this compiler begins so. Those that
  // begin with `__is_` are questions about types.
  for (const std::string_view fine : {"__metal_", "__METAL_", "__is_"})
    if (word.substr(0, fine.size()) == fine) return false;
  // `__UINT32_MAX__` and other limits.
  if (word.size() > 6 && word.substr(word.size() - 6) == "_MAX__") return false;
  return reserved_but_fine.count(word) == 0;
}

class Admission {
 public:
  Admission(const MetalText& text, const Syntax& syntax)
      : text_(text), tokens_(text.tokens()), own_(own_reserved_names(syntax)) {}

  void check() {
    for (size_t i = 0; i < tokens_.size(); i++) {
      const Token& token = tokens_[i];
      if (token.kind == TokenKind::directive) check_directive(token);
      else if (token.kind == TokenKind::word) check_word(i);
    }
  }

 private:
  std::string_view at(size_t i) const {
    return i < tokens_.size() ? text_.spelling(tokens_[i]) : std::string_view();
  }

  void check_directive(const Token& token) const {
    std::string_view line = text_.spelling(token).substr(1);
    const auto skip_spaces = [&] {
      line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    };
    const auto starts = [&](std::string_view word) {
      if (line.substr(0, word.size()) != word) return false;
      line.remove_prefix(word.size());
      return true;
    };
    skip_spaces();
    if (line.empty() || line == "\r") return;
    if (starts("pragma")) {
      skip_spaces();
      if (!is_known_pragma(line))
        text_.refuse(token, concat("#pragma ", line, " is refused; pragmas of Metal text are ", known_pragmas));
      return;
    }
    if (starts("include")) {
      skip_spaces();
      if (starts("<metal_")) return;
    }
    text_.refuse(token, concat(text_.spelling(token), " is refused: only the user's own text may have directives"));
  }

  void check_word(size_t i) const {
    const std::string_view word = at(i);
    if (const char* why = why_not_metal(word)) text_.refuse(tokens_[i], concat("`", word, "` ", why));
    if (word.rfind("upgc", 0) == 0 || word.rfind("UPGC", 0) == 0)
      text_.refuse(tokens_[i], concat("`", word, "` is reserved: names that begin with upgc belong to the runtime; "
                                                 "give it another name"));
    if (is_reserved(word) && own_.count(word) == 0)
      text_.refuse(tokens_[i], concat("`", word, "` is reserved: names that contain __ or begin with _ and a capital "
                                                 "belong to the compiler; use Metal's own functions and other names"));
    if (word == "__attribute__") check_gnu_attributes(i);
  }

  /// `__attribute__((a, b(1)))`, from the first word on.
  void check_gnu_attributes(size_t i) const {
    if (at(i + 1) != "(" || at(i + 2) != "(") text_.refuse(tokens_[i], "`__attribute__` must be followed by ((");
    int depth = 2;
    for (size_t t = i + 3; t < tokens_.size() && depth > 0; t++) {
      if (at(t) == "(") depth++;
      else if (at(t) == ")") depth--;
      else if (depth == 2 && tokens_[t].kind == TokenKind::word && gnu_attributes.count(at(t)) == 0)
        text_.refuse(tokens_[t], concat("the attribute `", at(t), "` is refused; __attribute__ may have always_inline, "
                                        "noinline, unused, packed, aligned, const and pure"));
    }
  }

  const MetalText& text_;
  const std::vector<Token>& tokens_;
  const std::set<std::string_view> own_;
};

}  // namespace

const char* why_not_metal(std::string_view word) {
  const auto refused = refused_words.find(word);
  return refused == refused_words.end() ? nullptr : refused->second;
}

void admit(const MetalText& text, const Syntax& syntax) {
  for (const Attribute& attribute : syntax.attributes())
    if (!is_attribute(attribute.name))
      text.refuse(attribute.at, concat("the attribute `", attribute.name, "` is none of a compute kernel's attributes "
                                       "that upgc knows; remove it"));
  Admission(text, syntax).check();
}

std::set<std::string_view> own_reserved_names(const Syntax& syntax) {
  std::set<std::string_view> own;
  for (const std::string_view name : syntax.declared_types())
    if (name[0] == '_' && is_reserved(name)) own.insert(name);
  return own;
}

}  // namespace upgc
