#include "directives.h"

#include <cstring>
#include <set>

#include "../error.h"

namespace upgc {
namespace {

/// Walks through raw text as the first phases of translation do: splices vanish, and comments, literals and directives
/// are told apart.
class Reader {
 public:
  Reader(const std::string& name, const std::string& text) : name_(name), text_(text) { skip_splices(); }

  RawText read() {
    bool line_is_empty = true;
    while (!done()) {
      const char c = current();
      if (c == '\n') line_is_empty = true, next();
      else if (c == ' ' || c == '\t' || c == '\r') next();
      else if (c == '/' && (following() == '/' || following() == '*')) skip_comment();
      else if (c == '#' && line_is_empty) directive(), line_is_empty = true;
      else line_is_empty = false, token();
    }
    return std::move(result_);
  }

 private:
  bool done() const { return at_ >= text_.size(); }
  char current() const { return done() ? '\0' : text_[at_]; }

  /// The character after the current one.
  char following() const {
    Reader ahead(*this, at_);
    ahead.next();
    return ahead.current();
  }

  void next() {
    if (copy_ != nullptr) *copy_ += text_[at_];
    if (text_[at_++] == '\n') line_++, start_ = at_;
    skip_splices();
  }

  /// A backslash, spaces and the end of a line are nothing at all.
  void skip_splices() {
    while (at_ < text_.size() && text_[at_] == '\\') {
      size_t end = at_ + 1;
      while (end < text_.size() && (text_[end] == ' ' || text_[end] == '\t' || text_[end] == '\r')) end++;
      if (end >= text_.size() || text_[end] != '\n') return;
      result_.needs_preprocessor = true;
      at_ = start_ = end + 1;
      line_++;
    }
  }

  [[noreturn]] void refuse(const std::string& message) const { refuse(line_, at_ - start_ + 1, message); }
  [[noreturn]] void refuse(uint32_t line, size_t column, const std::string& message) const {
    throw Error(code::compile, concat(name_, ":", line, ":", column, ": ", message));
  }

  void skip_comment() {
    const bool block = following() == '*';
    const Reader start(*this, at_);
    next();
    next();
    if (!block) {
      while (!done() && current() != '\n') next();
      return;
    }
    while (!done() && !(current() == '*' && following() == '/')) next();
    if (done()) start.refuse("comment without closing */");
    next();
    next();
  }

  void token() {
    const char c = current();
    if (c == '"' || c == '\'') literal(c);
    else if (is_letter(c)) word();
    else if (is_digit(c)) number();
    else punctuator(c);
  }

  /// A literal ends with its line at the latest. A quote that is left open is the lexer's to report: in a part that
  /// no condition selects, and in #error, it is nothing wrong.
  void literal(char quote) {
    for (next(); !done() && current() != quote && current() != '\n'; next())
      if (current() == '\\') {
        next();
        if (done() || current() == '\n') return;
      }
    if (current() == quote && !done()) next();
  }

  std::string take_word() {
    std::string word;
    for (; !done() && is_word(current()); next()) word += current();
    return word;
  }

  void word() {
    const Reader start(*this, at_);
    const std::string word = take_word();
    if (current() == '"' && starts_raw_string(word)) start.refuse("raw strings are not Metal");
    if (word.rfind("__has_", 0) == 0)
      start.refuse(concat(word, " is refused: what a kernel means must not depend on the machine that compiles it; "
                                "compare __METAL_VERSION__ instead"));
    if (word == "_Pragma") result_.needs_preprocessor = true;
  }

  void number() {
    for (char before = current(); !done(); before = current(), next()) {
      const char c = current();
      const bool sign = (c == '+' || c == '-') && std::strchr("eEpP", before) != nullptr;
      if (!is_word(c) && c != '.' && !sign && !(c == '\'' && is_word(following()))) return;
    }
  }

  void punctuator(char c) {
    if (c == '\\') refuse("a backslash outside of a literal; write names with letters, digits and _");
    if (uint8_t(c) >= 0x80) refuse("a character beyond ASCII outside of literals and comments is not Metal");
    if (c == '%' && following() == ':') refuse("the digraph %: is not Metal; write the character that it stands for");
    next();
  }

  void directive() {
    Directive directive{"", "", at_, at_, line_, uint32_t(at_ - start_ + 1)};
    next();
    std::string content;
    bool comments = false;
    while (!done() && current() != '\n') {
      if (current() == '/' && (following() == '/' || following() == '*')) {
        comments |= following() == '*';
        skip_comment();
        content += ' ';
        continue;
      }
      copy_ = &content;
      if (current() == ' ' || current() == '\t' || current() == '\r') next();
      else token();
      copy_ = nullptr;
    }
    directive.end = at_;
    const size_t name = content.find_first_not_of(" \t\r");
    if (name == std::string::npos) return;
    size_t end = name;
    while (end < content.size() && is_word(content[end])) end++;
    directive.name = content.substr(name, end - name);
    const size_t rest = content.find_first_not_of(" \t\r", end);
    if (rest != std::string::npos)
      directive.rest = content.substr(rest, content.find_last_not_of(" \t\r") + 1 - rest);
    check(directive, comments);
    result_.directives.push_back(directive);
  }

  void check(const Directive& directive, bool comments) {
    static const std::set<std::string> conditional = {"define", "undef", "if",     "ifdef", "ifndef",
                                                      "elif",   "elifdef", "elifndef", "else",  "endif"};
    const auto fail = [&](const auto&... message) {
      refuse(directive.line, directive.column, concat(message...));
    };
    if (directive.name == "include") return check_include(directive);
    if (directive.name == "pragma") {
      if (!is_known_pragma(directive.rest))
        fail("#pragma ", directive.rest, " is refused; pragmas of Metal text are ", known_pragmas);
      // Where a comment in such a line ends is a matter of the reader.
      result_.needs_preprocessor |= comments;
      return;
    }
    result_.needs_preprocessor = true;
    if (directive.name == "error" || directive.name == "warning") {
      if (comments) fail("a /* comment in #", directive.name, "; use // or none");
      return;
    }
    if (conditional.count(directive.name) == 0)
      fail("#", directive.name, " is refused; directives of Metal text are #include <metal_...>, #pragma, #define, "
           "#undef, #if and its kin, #error and #warning");
  }

  void check_include(const Directive& directive) const {
    const std::string& rest = directive.rest;
    size_t end = 7;
    if (rest.compare(0, 7, "<metal_") == 0)
      while (end < rest.size() && is_word(rest[end])) end++;
    if (end == 7 || rest.substr(end) != ">") {
      const bool quoted = rest.size() > 2 && std::strchr("<\"", rest[0]) != nullptr;
      refuse(directive.line, directive.column,
             concat(quoted ? concat("'", rest.substr(1, rest.size() - 2), "' file not found") : "#include " + rest,
                    ": Metal text may include <metal_...> headers only; put the rest into the text"));
    }
  }

  Reader(const Reader& other, size_t at)
      : name_(other.name_), text_(other.text_), at_(at), start_(other.start_), line_(other.line_) {}

  const std::string& name_;
  const std::string& text_;
  RawText result_;
  /// Where the characters that `next` passes are written.
  std::string* copy_ = nullptr;
  size_t at_ = 0;
  size_t start_ = 0;
  uint32_t line_ = 1;
};

/// Control characters end lines for some readers and not for others.
void check_characters(const std::string& name, const std::string& text) {
  uint32_t line = 1;
  size_t start = 0;
  for (size_t i = 0; i < text.size(); i++) {
    const uint8_t c = text[i];
    if (c == '\n') line++, start = i + 1;
    const bool fine = (c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t' ||
                      (c == '\r' && i + 1 < text.size() && text[i + 1] == '\n');
    if (!fine)
      throw Error(code::compile, concat(name, ":", line, ":", i - start + 1, ": the control character ", unsigned(c),
                                        " is not Metal"));
  }
}

}  // namespace

RawText read_directives(const std::string& name, const std::string& text) {
  check_characters(name, text);
  return Reader(name, text).read();
}

bool is_known_pragma(std::string_view rest) {
  std::vector<std::string> words(1);
  for (const char c : rest) {
    if (is_word(c)) words.back() += c;
    else if (c != ' ' && c != '\t' && words.back().empty()) break;
    else if (words.size() == 2) break;
    else if (!words.back().empty()) words.emplace_back();
  }
  words.resize(2);
  if (words[0] == "clang") return words[1] == "loop" || words[1] == "fp" || words[1] == "diagnostic";
  static const std::set<std::string> known = {"unroll", "nounroll", "unused", "mark", "once", "METAL"};
  return known.count(words[0]) != 0;
}

}  // namespace upgc
