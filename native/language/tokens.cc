#include "tokens.h"

#include <algorithm>
#include <cstring>

#include "../error.h"

namespace upgc {
namespace {

const char* const punctuation = "{}[]()<>;:,.?~!+-*/%^&|=";

/// Splits a text into tokens. Lines and columns count in the user's file: a line marker says what line comes next.
class Lexer {
 public:
  Lexer(const MetalText& out, const std::string& text, std::vector<Token>& tokens)
      : out_(out), text_(text), tokens_(tokens) {}

  void run() {
    while (at_ < text_.size()) step();
  }

 private:
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool starts_with(const char* token) const { return text_.compare(at_, std::strlen(token), token) == 0; }

  Token here() const { return {TokenKind::punctuator, uint32_t(at_), uint32_t(at_), line_, uint32_t(at_ - start_ + 1)}; }
  [[noreturn]] void refuse(const std::string& message) const { out_.refuse(here(), message); }

  void add(TokenKind kind, size_t end) {
    Token token = here();
    token.kind = kind;
    token.end = uint32_t(end);
    tokens_.push_back(token);
    at_ = end;
    line_is_empty_ = false;
  }

  void new_line() {
    at_++;
    line_++;
    start_ = at_;
    line_is_empty_ = true;
  }

  void step() {
    const char c = peek();
    if (c == '\n') new_line();
    else if (c == ' ' || c == '\t' || c == '\r') at_++;
    else if (starts_with("//")) skip_line();
    else if (starts_with("/*")) skip_comment();
    else if (c == '#') directive();
    else if (c == '"' || c == '\'') literal(c);
    else if (is_digit(c) || (c == '.' && is_digit(peek(1)))) number();
    else if (is_letter(c)) word();
    else punctuator(c);
  }

  void skip_line() { at_ = std::min(text_.find('\n', at_), text_.size()); }

  void skip_comment() {
    const size_t end = text_.find("*/", at_ + 2);
    if (end == std::string::npos) refuse("comment without closing */");
    while (at_ < end)
      if (peek() == '\n') new_line();
      else at_++;
    at_ = end + 2;
  }

  void directive() {
    if (!line_is_empty_) refuse("# within a line; a directive starts its line");
    size_t end = std::min(text_.find('\n', at_), text_.size());
    size_t digits = at_ + 1;
    while (digits < end && text_[digits] == ' ') digits++;
    if (digits < end && is_digit(text_[digits])) marker(digits, end);
    else add(TokenKind::directive, end);
  }

  /// `# 12 "name" flags`: the next line is line 12. All of the text is the user's, so the name tells nothing.
  void marker(size_t digits, size_t end) {
    uint64_t line = 0;
    for (; digits < end && is_digit(text_[digits]) && line < UINT32_MAX; digits++) line = line * 10 + (text_[digits] - '0');
    at_ = end;
    line_ = uint32_t(line) - 1;
  }

  void literal(char quote) {
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote && text_[end] != '\n') end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size() || text_[end] == '\n')
      refuse(quote == '"' ? "string without closing quote" : "character without closing quote");
    add(quote == '"' ? TokenKind::string : TokenKind::character, end + 1);
  }

  void number() {
    size_t end = at_ + 1;
    for (; end < text_.size(); end++) {
      const char c = text_[end], before = text_[end - 1];
      const bool sign = (c == '+' || c == '-') && std::strchr("eEpP", before) != nullptr;
      // A quote separates digits: 1'000'000.
      const bool separator = c == '\'' && end + 1 < text_.size() && is_word(text_[end + 1]);
      if (!is_word(c) && c != '.' && !sign && !separator) break;
    }
    add(TokenKind::number, end);
  }

  void word() {
    size_t end = at_;
    while (end < text_.size() && is_word(text_[end])) end++;
    if (end < text_.size() && text_[end] == '"' &&
        starts_raw_string(std::string_view(text_).substr(at_, end - at_)))
      refuse("raw strings are not Metal");
    add(TokenKind::word, end);
  }

  void punctuator(char c) {
    if (std::strchr(punctuation, c) == nullptr || c == '\0') {
      if (c == '\\') refuse("a backslash outside of a literal; write names with letters, digits and _");
      refuse(concat(uint8_t(c) < 0x80 ? concat("the character ", c) : std::string("a character beyond ASCII"),
                    " outside of literals and comments is not Metal"));
    }
    refuse_digraph();
    const bool pair = starts_with("::") || starts_with("->");
    add(TokenKind::punctuator, at_ + (pair ? 2 : 1));
  }

  void refuse_digraph() const {
    // `<::` is `<` and `::` unless another `:` or a `>` follows, so that a<::b> means what it looks like.
    const bool qualified = starts_with("<::") && peek(3) != ':' && peek(3) != '>';
    for (const char* digraph : {"<:", ":>", "<%", "%>", "%:"})
      if (starts_with(digraph) && !qualified)
        refuse(concat("the digraph ", digraph, " is not Metal; write the character that it stands for"));
    if (starts_with("??") && peek(2) != '\0' && std::strchr("=/'()!<>-", peek(2)) != nullptr)
      refuse(concat("the trigraph ", text_.substr(at_, 3), " is not Metal; write the character that it stands for"));
  }

  const MetalText& out_;
  const std::string& text_;
  std::vector<Token>& tokens_;
  size_t at_ = 0;
  size_t start_ = 0;
  uint32_t line_ = 1;
  bool line_is_empty_ = true;
};

}  // namespace

MetalText::MetalText(std::string name, std::string text) : name_(std::move(name)), text_(std::move(text)) {
  Lexer(*this, text_, tokens_).run();
}

void MetalText::refuse(const Token& at, const std::string& message) const {
  throw Error(code::compile, concat(name_, ":", at.line, ":", at.column, ": ", message));
}

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

bool starts_raw_string(std::string_view prefix) {
  for (const char* raw : {"R", "LR", "uR", "UR", "u8R"})
    if (prefix == raw) return true;
  return false;
}

}  // namespace upgc
