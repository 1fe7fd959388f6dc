#include "translation_unit.h"

#include <algorithm>
#include <cctype>
#include <cstring>

#include "../error.h"

namespace upgc {
namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

/// Steps through Metal text token by token: comments, literals, words (with numbers among them), single characters.
class Scanner {
 public:
  explicit Scanner(const std::string& text, size_t at = 0) : text_(text), at_(at) {}

  bool done() const { return at_ >= text_.size(); }
  size_t position() const { return at_; }
  char current() const { return text_[at_]; }
  bool starts_with(const char* token) const { return text_.compare(at_, std::strlen(token), token) == 0; }
  bool at_word(const char* word) const {
    const size_t end = at_ + std::strlen(word);
    return starts_with(word) && (end == text_.size() || !is_word(text_[end]));
  }

  /// Moves behind the token.
  void advance() {
    if (starts_with("//")) skip_line_comment();
    else if (starts_with("/*")) skip_to("*/");
    else if (current() == '"' || current() == '\'') skip_literal(current());
    else if (is_word(current())) skip_word();
    else at_++;
  }

 private:
  void skip_line_comment() {
    while (!done() && current() != '\n') at_ += current() == '\\' ? 2 : 1;
  }

  void skip_to(const char* end) {
    const size_t found = text_.find(end, at_ + 2);
    at_ = found == std::string::npos ? text_.size() : found + 2;
  }

  void skip_literal(char quote) {
    at_++;
    // A literal ends with its line at the latest; clang reports the missing quote.
    while (!done() && current() != quote && current() != '\n') at_ += current() == '\\' ? 2 : 1;
    if (!done()) at_++;
  }

  void skip_word() {
    const bool number = std::isdigit(static_cast<unsigned char>(current())) != 0;
    // In a number a quote separates digits: 1'000'000.
    while (!done() && (is_word(current()) || (number && current() == '\''))) at_++;
  }

  const std::string& text_;
  size_t at_;
};

/// Moves behind the `]]` that closes the attribute at the scanner's position. False when there is none.
bool skip_attribute(Scanner& scanner) {
  int depth = 0;
  while (!scanner.done()) {
    if (scanner.current() == '[') depth++;
    if (scanner.current() == ']' && --depth == 0) {
      scanner.advance();
      return true;
    }
    scanner.advance();
  }
  return false;
}

/// Whether the declaration that starts at the scanner's position makes a variable, not a pointer or reference to one.
bool declares_variable(Scanner scanner) {
  for (; !scanner.done(); scanner.advance()) {
    const char c = scanner.current();
    if (c == '*' || c == '&') return false;
    if (c == ';' || c == '=' || c == '[' || c == ',' || c == '{') return true;
  }
  return false;
}

/// A C++ string literal. Control characters never get here, see check_program.
std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

std::string argument_source(const Kernel& kernel, size_t index) {
  const Argument& argument = kernel.arguments[index];
  if (argument.kind == ArgumentKind::position) return concat("upgc::", argument.position);
  size_t ordinal = 0;
  uint64_t offset = 0;
  for (size_t i = 0; i < index; i++) {
    if (kernel.arguments[i].kind != argument.kind) continue;
    ordinal++;
    offset += kernel.arguments[i].bytes;
  }
  if (argument.kind == ArgumentKind::buffer) return concat("upgc::Buffer<", ordinal, ">");
  return concat("upgc::Threadgroup<", offset, ">");
}

}  // namespace

std::string metal_to_cpp(const std::string& text, const std::string& source_name) {
  const std::string threadgroup = "threadgroup", shared = "upgc_shared";
  std::string result = text;
  Scanner scanner(text);
  while (!scanner.done()) {
    const size_t start = scanner.position();
    if (scanner.at_word(threadgroup.c_str()) && declares_variable(scanner))
      result.replace(start, threadgroup.size(), shared);
    if (!scanner.starts_with("[[")) {
      scanner.advance();
      continue;
    }
    if (!skip_attribute(scanner)) {
      const auto line = 1 + std::count(text.begin(), text.begin() + start, '\n');
      throw Error(code::compile, concat(source_name, ":", line, ": attribute without closing ]]"));
    }
    std::replace_if(
        result.begin() + start, result.begin() + scanner.position(), [](char c) { return c != '\n'; }, ' ');
  }
  return result;
}

std::string translation_unit(const ProgramSpec& spec) {
  std::string unit = concat("#include <msl.h>\n#line 1 ", quoted(spec.source_name), "\n",
                            metal_to_cpp(spec.source, spec.source_name), "\n");
  // An array cannot be empty, so the table ends with an entry without a name.
  unit += "#line 1 \"kernel table\"\nstatic constexpr upgc::abi::Kernel upgc_kernels[] = {\n";
  for (const Kernel& kernel : spec.kernels) {
    unit += concat("#line 1 ", quoted("plan, kernel " + kernel.name), "\n  upgc::Thunk<&", kernel.name,
                   ", upgc::Threads<", kernel.threads[0], ", ", kernel.threads[1], ", ", kernel.threads[2], ">, ",
                   kernel.buffer_count());
    for (size_t i = 0; i < kernel.arguments.size(); i++) unit += ", " + argument_source(kernel, i);
    unit += concat(">::entry(\"", kernel.name, "\"),\n");
  }
  unit += "#line 1 \"kernel table\"\n  {nullptr, 0, nullptr, nullptr}};\nUPGC_MODULE(upgc_kernels)\n";
  return unit;
}

}  // namespace upgc
