#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tokens.h"

namespace upgc {

constexpr size_t nowhere = size_t(-1);

inline bool is_address_space(std::string_view word) {
  return word == "device" || word == "threadgroup" || word == "thread" || word == "constant";
}

/// One attribute out of a `[[...]]`.
struct Attribute {
  std::string name;
  Token at;
  /// Its tokens between the parentheses: [begin, end) of MetalText::tokens().
  size_t begin, end;
  /// The token of Syntax::code() before which it stands.
  size_t position;
};

/// `[[...]]` as a piece of text.
struct AttributeList {
  uint32_t begin, end;
  bool makes_kernel;
};

/// What is declared at the level of a namespace or class, as far as it matters here. Places are in Syntax::code().
struct Declaration {
  enum Kind { function, instantiation, enumeration, other };
  Kind kind;
  /// [begin, end): all of it, with body and semicolon.
  size_t begin, end;
  /// Behind `template <...>`.
  size_t head;
  /// Of a function: the ( of its parameters, and its {, if any. Of an enumeration: its {.
  size_t parameters = nowhere, body = nowhere;
  /// Index into Syntax::scopes().
  size_t scope;
};

/// A namespace or class.
struct Scope {
  std::string name;
  size_t parent;
  bool is_class;
};

/// The text as brackets, attributes and declarations. This is no parser of C++: what it does not understand it leaves
/// to the compiler, and it takes linear time on any text.
class Syntax {
 public:
  /// UPGC_COMPILE for an attribute without an end.
  explicit Syntax(const MetalText& text);

  const MetalText& text() const { return text_; }
  /// All tokens but directives and attributes.
  const std::vector<Token>& code() const { return code_; }
  /// The spelling of code()[i]; empty behind the end.
  std::string_view at(size_t i) const { return i < code_.size() ? text_.spelling(code_[i]) : std::string_view(); }
  bool is_word_at(size_t i) const { return i < code_.size() && code_[i].kind == TokenKind::word; }
  /// The bracket that belongs to the one at `i`; `nowhere` when none does.
  size_t partner(size_t i) const { return partner_[i]; }
  /// Behind the `>` that closes the `<` at `i`; `nowhere` when this is no template list.
  size_t behind_angles(size_t i) const;
  /// Where the template list or bracket at `i` ends, or i + 1: the next token on the same level.
  size_t behind(size_t i) const;
  /// [begin, end) split at commas on its own level.
  std::vector<std::pair<size_t, size_t>> split(size_t begin, size_t end) const;
  /// The text of [begin, end) with single spaces.
  std::string spelled(size_t begin, size_t end) const;

  /// Whether the declaration behind the word at `i` makes a variable, not a pointer or reference to one.
  bool declares_variable(size_t i) const;
  /// Whether a statement starts at `i`, or before words that may come first.
  bool starts_statement(size_t i) const;

  const std::vector<Attribute>& attributes() const { return attributes_; }
  const std::vector<AttributeList>& attribute_lists() const { return lists_; }
  using Attributes = std::vector<Attribute>::const_iterator;
  /// Those that stand before one of code()[begin, end].
  std::pair<Attributes, Attributes> attributes_in(size_t begin, size_t end) const;
  /// The first of them with this name.
  const Attribute* find_attribute(std::string_view name, size_t begin, size_t end) const;

  /// The names that follow `struct`, `class`, `union` and `enum`.
  std::set<std::string_view> declared_types() const;
  const std::vector<Declaration>& declarations() const { return declarations_; }
  const std::vector<Scope>& scopes() const { return scopes_; }

 private:
  void separate_attributes();
  size_t read_attributes(size_t first);
  void match_brackets();
  void find_declarations();
  void find_declaration(size_t& at, size_t& scope);

  const MetalText& text_;
  std::vector<Token> code_;
  std::vector<size_t> partner_;
  std::vector<Attribute> attributes_;
  std::vector<AttributeList> lists_;
  std::vector<Declaration> declarations_;
  std::vector<Scope> scopes_;
};

}  // namespace upgc
