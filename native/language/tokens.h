#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace upgc {

enum class TokenKind : unsigned char { word, number, string, character, punctuator, directive };

/// A piece of Metal text. `::` and `->` are one punctuator, all others have one character, so that `>>` closes two
/// template lists. A directive is a whole line.
struct Token {
  TokenKind kind;
  uint32_t begin, end;
  /// In the user's file, from 1. Columns of text that went through the preprocessor are those of its output.
  uint32_t line, column;
};

/// Preprocessed Metal text and its tokens, comments left out. Line markers move the lines and are no tokens.
class MetalText {
 public:
  /// UPGC_COMPILE for a literal or comment without an end, and for characters that are no part of Metal: what another
  /// reader might split in another way than this one is refused.
  MetalText(std::string name, std::string text);

  /// What diagnostics call the text.
  const std::string& name() const { return name_; }
  const std::string& text() const { return text_; }
  const std::vector<Token>& tokens() const { return tokens_; }
  std::string_view spelling(const Token& token) const {
    return std::string_view(text_).substr(token.begin, token.end - token.begin);
  }
  /// Throws UPGC_COMPILE: `name:line:column: message`.
  [[noreturn]] void refuse(const Token& at, const std::string& message) const;

 private:
  std::string name_;
  std::string text_;
  std::vector<Token> tokens_;
};

/// The most bytes of Metal text, before and after preprocessing; the largest public files have a tenth.
constexpr size_t max_text_bytes = 8u << 20;

/// A C++ string literal. Control characters never get here, see check_program.
std::string quoted(std::string_view text);

inline bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
inline bool is_word(char c) { return is_letter(c) || is_digit(c); }

/// Whether a literal with this word before its quote is a raw string, in which neither quotes nor lines end as usual.
bool starts_raw_string(std::string_view prefix);

}  // namespace upgc
