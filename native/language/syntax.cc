#include "syntax.h"

#include <algorithm>
#include <cstring>

#include "../error.h"

namespace upgc {
namespace {

bool opens(std::string_view token) { return token == "(" || token == "[" || token == "{"; }
bool closes(std::string_view token) { return token == ")" || token == "]" || token == "}"; }
char opener_of(std::string_view token) { return token == ")" ? '(' : token == "]" ? '[' : '{'; }

}  // namespace

Syntax::Syntax(const MetalText& text) : text_(text) {
  separate_attributes();
  match_brackets();
  find_declarations();
}

void Syntax::separate_attributes() {
  const std::vector<Token>& tokens = text_.tokens();
  for (size_t i = 0; i < tokens.size(); i++) {
    const bool doubled = i + 1 < tokens.size() && text_.spelling(tokens[i]) == "[" &&
                         text_.spelling(tokens[i + 1]) == "[" && tokens[i].kind == TokenKind::punctuator &&
                         tokens[i + 1].kind == TokenKind::punctuator;
    if (doubled) i = read_attributes(i);
    else if (tokens[i].kind != TokenKind::directive) code_.push_back(tokens[i]);
  }
}

/// Reads the list whose first bracket is `first`; returns its last bracket.
size_t Syntax::read_attributes(size_t first) {
  const std::vector<Token>& tokens = text_.tokens();
  const auto spelling = [&](size_t i) {
    return i < tokens.size() ? text_.spelling(tokens[i]) : std::string_view();
  };
  const size_t before = attributes_.size();
  std::vector<size_t> open;
  bool name_expected = true, is_kernel = false;
  for (size_t i = first + 2; i < tokens.size(); i++) {
    const std::string_view token = spelling(i);
    if (open.empty() && token == "]" && spelling(i + 1) == "]") {
      lists_.push_back({tokens[first].begin, tokens[i + 1].end, is_kernel});
      return i + 1;
    }
    if (opens(token)) {
      open.push_back(i);
    } else if (closes(token)) {
      if (open.empty() || spelling(open.back())[0] != opener_of(token)) break;
      if (open.size() == 1 && attributes_.size() > before && attributes_.back().begin == nowhere) {
        attributes_.back().begin = open[0] + 1;
        attributes_.back().end = i;
      }
      open.pop_back();
    } else if (open.empty() && token == ",") {
      name_expected = true;
    } else if (open.empty() && (token == ";" || token == "{")) {
      break;
    } else if (open.empty() && name_expected) {
      const bool scoped = spelling(i + 1) == "::";
      attributes_.push_back({scoped ? concat(token, "::", spelling(i + 2)) : std::string(token), tokens[i],
                             nowhere, nowhere, code_.size()});
      is_kernel |= token == "kernel";
      name_expected = false;
    }
  }
  text_.refuse(tokens[first], "attribute without closing ]]");
}

void Syntax::match_brackets() {
  partner_.assign(code_.size(), nowhere);
  std::vector<size_t> open;
  for (size_t i = 0; i < code_.size(); i++) {
    if (code_[i].kind != TokenKind::punctuator) continue;
    if (opens(at(i))) open.push_back(i);
    if (!closes(at(i))) continue;
    if (open.empty() || at(open.back())[0] != opener_of(at(i)))
      text_.refuse(code_[i], concat("`", at(i), "` closes no `", opener_of(at(i)), "`"));
    partner_[i] = open.back();
    partner_[open.back()] = i;
    open.pop_back();
  }
  // The compiler would say so of the table of kernels that follows the text.
  if (!open.empty()) text_.refuse(code_[open.back()], concat("`", at(open.back()), "` is never closed"));
}

size_t Syntax::behind_angles(size_t i) const {
  // Enough for any template list; without a limit a row of `<` would take quadratic time.
  constexpr size_t max_tokens = 500;
  int depth = 0;
  for (size_t end = std::min(code_.size(), i + max_tokens); i < end; i++) {
    const std::string_view token = at(i);
    if (token == "<") depth++;
    else if (token == ">" && --depth == 0) return i + 1;
    else if (token == ";" || token == "{" || closes(token)) return nowhere;
    else if (opens(token) && (i = partner(i)) == nowhere) return nowhere;
  }
  return nowhere;
}

size_t Syntax::behind(size_t i) const {
  if (opens(at(i)) && code_[i].kind == TokenKind::punctuator) return partner(i) == nowhere ? i + 1 : partner(i) + 1;
  if (at(i) == "<" && i > 0 && is_word_at(i - 1)) {
    const size_t end = behind_angles(i);
    if (end != nowhere) return end;
  }
  return i + 1;
}

std::vector<std::pair<size_t, size_t>> Syntax::split(size_t begin, size_t end) const {
  std::vector<std::pair<size_t, size_t>> parts;
  size_t start = begin;
  for (size_t i = begin; i < end; i = behind(i)) {
    if (at(i) != ",") continue;
    parts.emplace_back(start, i);
    start = i + 1;
  }
  if (start < end || !parts.empty()) parts.emplace_back(start, end);
  return parts;
}

std::string Syntax::spelled(size_t begin, size_t end) const {
  std::string result;
  for (size_t i = begin; i < end && i < code_.size(); i++) {
    if (i > begin && code_[i - 1].end != code_[i].begin) result += ' ';
    result += at(i);
  }
  return result;
}

bool Syntax::declares_variable(size_t i) const {
  for (i++; i < code_.size(); i = behind(i)) {
    const std::string_view token = at(i);
    if (token == "*" || token == "&" || token == ":") return false;
    if (token == "(" && at(i - 1) != "alignas") return false;
    if (token == ";" || token == "=" || token == "[" || token == "," || token == "{") return true;
  }
  return false;
}

bool Syntax::starts_statement(size_t i) const {
  while (i > 0) {
    const std::string_view before = at(i - 1);
    if (before == "const" || before == "volatile") i--;
    else if (before == ")" && partner(i - 1) != nowhere && partner(i - 1) > 0 && at(partner(i - 1) - 1) == "alignas")
      i = partner(i - 1) - 1;
    else return before == ";" || before == "{" || before == "}" || before == ":";
  }
  return true;
}

std::pair<Syntax::Attributes, Syntax::Attributes> Syntax::attributes_in(size_t begin, size_t end) const {
  const auto before = [](const Attribute& attribute, size_t position) { return attribute.position < position; };
  const Attributes first = std::lower_bound(attributes_.begin(), attributes_.end(), begin, before);
  return {first, std::lower_bound(first, attributes_.end(), end + 1, before)};
}

const Attribute* Syntax::find_attribute(std::string_view name, size_t begin, size_t end) const {
  const auto [first, last] = attributes_in(begin, end);
  const auto found = std::find_if(first, last, [&](const Attribute& attribute) { return attribute.name == name; });
  return found == last ? nullptr : &*found;
}

std::set<std::string_view> Syntax::declared_types() const {
  std::set<std::string_view> names;
  for (size_t i = 1; i < code_.size(); i++) {
    const std::string_view before = at(i - 1);
    const bool declares = before == "struct" || before == "class" || before == "union" || before == "enum";
    if (declares && is_word_at(i)) names.insert(at(i));
  }
  return names;
}

void Syntax::find_declarations() {
  scopes_.push_back({"", nowhere, false});
  size_t scope = 0;
  for (size_t i = 0; i < code_.size();) find_declaration(i, scope);
}

/// Reads the declaration at `at` and moves behind it, or into it when it is a namespace or class.
void Syntax::find_declaration(size_t& i, size_t& scope) {
  if (at(i) == "}") {
    if (scope != 0) scope = scopes_[scope].parent;
    i++;
    return;
  }
  const bool is_label = at(i + 1) == ":" && (at(i) == "public" || at(i) == "private" || at(i) == "protected");
  if (at(i) == ";" || is_label) {
    i += is_label ? 2 : 1;
    return;
  }
  Declaration declaration{Declaration::other, i, i, i, nowhere, nowhere, scope};
  size_t j = i;
  while (at(j) == "template" && at(j + 1) == "<") {
    const size_t end = behind_angles(j + 1);
    if (end == nowhere) break;
    j = end;
  }
  declaration.head = j;
  if (at(j) == "template") declaration.kind = Declaration::instantiation, j++;
  size_t group = nowhere;  // of `namespace`, `struct`, ...
  bool assigned = false, angles = true;
  for (; j < code_.size() && at(j) != ";" && at(j) != "}";) {
    const std::string_view token = at(j);
    if (token == "operator") {
      // Its name may be any punctuation, also `()`.
      j++;
      if (at(j) == "(" || at(j) == "[") j = behind(j);
      else while (j < code_.size() && at(j) != "(" && at(j) != ";" && at(j) != "{") j++;
      if (at(j) == "(" && declaration.parameters == nowhere) declaration.parameters = j, j = behind(j);
      continue;
    }
    const bool before_parameters = declaration.parameters == nowhere && !assigned;
    if (token == "{") {
      if (group != nowhere && before_parameters && at(group) != "enum") {
        scopes_.push_back({std::string(is_word_at(group + 1) ? spelled(group + 1, j) : ""), scope, at(group) != "namespace"});
        scope = scopes_.size() - 1;
        i = j + 1;
        return;
      }
      if (group != nowhere && before_parameters) {
        declaration.kind = Declaration::enumeration;
        declaration.body = j;
      } else if (declaration.parameters != nowhere && !assigned) {
        const size_t next = behind(j);
        if (at(next) == "," || at(next) == "{") {  // a{1}, in a constructor's list
          j = next;
          continue;
        }
        if (declaration.kind == Declaration::other) declaration.kind = Declaration::function;
        declaration.body = j;
        j = next;
        break;
      }
      j = behind(j);
      continue;
    }
    if (token == "(") {
      const std::string_view before = j > declaration.head ? at(j - 1) : std::string_view();
      const bool names = (is_word_at(j - 1) && before != "alignas" && before != "decltype" &&
                          before != "__attribute__") || before == ">";
      if (before_parameters && j > declaration.head && names) declaration.parameters = j;
      j = behind(j);
      continue;
    }
    if (token == "=") assigned = true;
    if (before_parameters && group == nowhere &&
        (token == "namespace" || token == "struct" || token == "class" || token == "union" || token == "enum"))
      group = j;
    if (token == "<" && angles && j > 0 && is_word_at(j - 1)) {
      const size_t end = behind_angles(j);
      angles = end != nowhere;
      j = angles ? end : j + 1;
      continue;
    }
    j = token == "[" ? behind(j) : j + 1;
  }
  if (at(j) == ";") j++;
  if (j == i) j++;
  declaration.end = std::min(j, code_.size());
  if (declaration.kind == Declaration::other && declaration.parameters != nowhere && !assigned)
    declaration.kind = Declaration::function;
  declarations_.push_back(declaration);
  i = j;
}

}  // namespace upgc
