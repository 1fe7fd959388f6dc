#include "kernels.h"

#include <algorithm>
#include <cstdlib>
#include <set>

#include "../error.h"

namespace upgc {
namespace {

/// The content of a string literal without prefix, with its simplest escapes.
std::string unquoted(std::string_view literal) {
  std::string result;
  for (size_t i = 1; i + 1 < literal.size(); i++) {
    if (literal[i] == '\\') i++;
    result += literal[i];
  }
  return result;
}

std::string host_name(const Syntax& syntax, const Attribute& attribute) {
  const MetalText& text = syntax.text();
  std::string name;
  for (size_t i = attribute.begin; i < attribute.end && attribute.begin != nowhere; i++) {
    const Token& token = text.tokens()[i];
    if (token.kind != TokenKind::string) text.refuse(token, "host_name takes a string literal");
    name += unquoted(text.spelling(token));
  }
  if (name.empty()) text.refuse(attribute.at, "host_name takes the name that the host asks for, as a string");
  return name;
}

/// The function that an explicit instantiation names: [begin, end) of the code.
std::pair<size_t, size_t> instantiated_function(const Syntax& syntax, const Declaration& declaration) {
  static const std::set<std::string_view> specifiers = {"kernel", "static", "inline", "typename", "const", "METAL_FUNC"};
  size_t i = declaration.head + 1;
  while (specifiers.count(syntax.at(i)) != 0) i++;
  // The type: void, decltype(...), or a name with template arguments.
  const bool deduced = syntax.at(i) == "decltype";
  i++;
  if (deduced) i = syntax.behind(i);
  while (syntax.at(i) == "::") i += 2;
  if (syntax.at(i) == "<") i = syntax.behind(i);
  const size_t end = declaration.parameters != nowhere ? declaration.parameters : declaration.end - 1;
  return {std::min(i, end), end};
}

/// Where the template arguments at the end of [begin, end) begin, or `end`.
size_t arguments_of(const Syntax& syntax, size_t begin, size_t end) {
  for (size_t i = begin; i < end; i++)
    if (syntax.at(i) == "<") return i;
  return end;
}

class KernelList {
 public:
  explicit KernelList(const Syntax& syntax) : syntax_(syntax) {}

  std::vector<KernelEntry> find() {
    const std::vector<Declaration>& declarations = syntax_.declarations();
    for (size_t d = 0; d < declarations.size(); d++)
      if (declarations[d].kind == Declaration::function && declarations[d].body != nowhere) add_definition(d);
    for (const Declaration& declaration : declarations)
      if (declaration.kind == Declaration::instantiation) add_instantiation(declaration);
    return std::move(entries_);
  }

 private:
  void add(const KernelEntry& entry, const Token& at) {
    if (!names_.insert(entry.host_name).second)
      syntax_.text().refuse(at, concat("two kernels are called ", entry.host_name,
                                       "; give one another name with [[host_name(\"...\")]]"));
    entries_.push_back(entry);
  }

  void add_definition(size_t index) {
    const Declaration& declaration = syntax_.declarations()[index];
    if (!makes_kernel(syntax_, declaration.head, declaration.parameters)) return;
    const size_t name = declaration.parameters - 1;
    const std::string called(syntax_.at(name));
    definitions_.emplace(called, index);
    if (declaration.head != declaration.begin) return;  // a template: only its instantiations are kernels
    const Attribute* attribute = syntax_.find_attribute("host_name", declaration.begin, declaration.parameters);
    add({attribute != nullptr ? host_name(syntax_, *attribute) : called, called, declaration.scope, index, {},
         syntax_.code()[name]},
        attribute != nullptr ? attribute->at : syntax_.code()[name]);
  }

  void add_instantiation(const Declaration& declaration) {
    const auto [begin, end] = instantiated_function(syntax_, declaration);
    if (begin >= end || !makes_kernel(syntax_, declaration.head, begin)) return;
    const size_t angles = arguments_of(syntax_, begin, end);
    const std::string expression = syntax_.spelled(begin, end);
    const Attribute* attribute = syntax_.find_attribute("host_name", declaration.head, end);
    KernelEntry entry{attribute != nullptr ? host_name(syntax_, *attribute) : expression, expression,
                      declaration.scope, nowhere, {}, syntax_.code()[begin]};
    if (angles + 1 < end)
      for (const auto& [first, last] : syntax_.split(angles + 1, end - 1))
        entry.template_arguments.push_back(syntax_.spelled(first, last));
    find_definition(declaration, std::string(syntax_.at(angles - 1)), entry);
    add(entry, attribute != nullptr ? attribute->at : syntax_.code()[begin]);
  }

  /// Of several kernels with one name, the one with as many parameters as the instantiation.
  void find_definition(const Declaration& instantiation, const std::string& name, KernelEntry& entry) const {
    const auto [first, last] = definitions_.equal_range(name);
    if (first == last) return;
    entry.definition = first->second;
    const size_t open = instantiation.parameters;
    if (std::distance(first, last) == 1 || open == nowhere || syntax_.partner(open) == nowhere) return;
    entry.type = concat("void (*)(", syntax_.spelled(open + 1, syntax_.partner(open)), ")");
    for (auto definition = first; definition != last; ++definition)
      if (parameter_count(syntax_.declarations()[definition->second].parameters) == parameter_count(open))
        entry.definition = definition->second;
  }

  size_t parameter_count(size_t open) const {
    return syntax_.partner(open) == nowhere ? 0 : syntax_.split(open + 1, syntax_.partner(open)).size();
  }

  const Syntax& syntax_;
  std::vector<KernelEntry> entries_;
  std::set<std::string> names_;
  std::multimap<std::string, size_t> definitions_;
};

/// Integer expressions in C's grammar, as far as indices and sizes are written with them.
class Evaluator {
 public:
  using Lookup = std::optional<int64_t> (*)(void* context, const std::string& name, int depth);

  Evaluator(std::string_view text, void* context, Lookup lookup, int depth)
      : text_(text), context_(context), lookup_(lookup), depth_(depth) {}

  std::optional<int64_t> value() {
    const int64_t result = expression(0);
    skip_spaces();
    return failed_ || at_ != text_.size() ? std::nullopt : std::optional<int64_t>(result);
  }

 private:
  static constexpr int max_depth = 64;

  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) at_++;
  }

  bool take(std::string_view token) {
    skip_spaces();
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }

  int64_t fail() {
    failed_ = true;
    return 0;
  }

  /// Operators of `level` and tighter ones.
  int64_t expression(int level) {
    static constexpr std::string_view operators[][3] = {{"|"}, {"^"}, {"&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "%"}};
    if (level == 6) return operand();
    int64_t left = expression(level + 1);
    while (!failed_) {
      std::string_view found;
      for (const std::string_view op : operators[level])
        if (!op.empty() && found.empty() && take(op)) found = op;
      if (found.empty()) break;
      left = apply(found, left, expression(level + 1));
    }
    return left;
  }

  int64_t apply(std::string_view op, int64_t a, int64_t b) {
    // 32 bits are more than any index or size has; within them nothing here overflows.
    constexpr int64_t most = int64_t(1) << 31;
    if (a < -most || a > most || b < -most || b > most) return fail();
    const bool divides = op == "/" || op == "%", shifts = op == "<<" || op == ">>";
    if ((divides && b == 0) || (shifts && (b < 0 || b > 31 || a < 0))) return fail();
    switch (op[0]) {
      case '|': return a | b;
      case '^': return a ^ b;
      case '&': return a & b;
      case '<': return a << b;
      case '>': return a >> b;
      case '+': return a + b;
      case '-': return a - b;
      case '*': return a * b;
      case '/': return a / b;
      default: return a % b;
    }
  }

  int64_t operand() {
    if (failed_ || ++depth_ > max_depth) return fail();
    int64_t result = 0;
    skip_spaces();
    if (take("(")) {
      result = expression(0);
      if (!take(")")) return fail();
    } else if (take("-")) {
      result = -operand();
    } else if (take("+")) {
      result = operand();
    } else if (at_ < text_.size() && is_digit(text_[at_])) {
      result = number();
    } else if (at_ < text_.size() && is_letter(text_[at_])) {
      result = name();
    } else {
      return fail();
    }
    depth_--;
    return result;
  }

  int64_t number() {
    std::string digits;
    while (at_ < text_.size() && (is_word(text_[at_]) || text_[at_] == '\'')) {
      if (text_[at_] != '\'') digits += text_[at_];
      at_++;
    }
    char* end = nullptr;
    const bool binary = digits.size() > 2 && (digits[1] == 'b' || digits[1] == 'B');
    const int64_t value = std::strtoll(digits.c_str() + (binary ? 2 : 0), &end, binary ? 2 : 0);
    for (; *end != '\0'; end++)
      if (*end != 'u' && *end != 'U' && *end != 'l' && *end != 'L') return fail();
    return value;
  }

  int64_t name() {
    std::string name;
    do {
      skip_spaces();
      const size_t begin = at_;
      while (at_ < text_.size() && is_word(text_[at_])) at_++;
      name = text_.substr(begin, at_ - begin);
    } while (take("::"));
    const std::optional<int64_t> value = lookup_(context_, name, depth_);
    return value ? *value : fail();
  }

  std::string_view text_;
  void* context_;
  Lookup lookup_;
  int depth_;
  size_t at_ = 0;
  bool failed_ = false;
};

struct Names {
  const std::map<std::string, std::string>& expressions;
  const std::map<std::string, std::string>& substitutes;
  int lookups = 0;
};

std::optional<int64_t> look_up(void* context, const std::string& name, int depth) {
  Names& names = *static_cast<Names*>(context);
  // Each name may stand for two of the next: without a limit that takes as long as a hostile text likes.
  if (++names.lookups > 1000) return std::nullopt;
  auto found = names.substitutes.find(name);
  if (found == names.substitutes.end() && (found = names.expressions.find(name)) == names.expressions.end())
    return std::nullopt;
  return Evaluator(found->second, context, look_up, depth + 1).value();
}

}  // namespace

bool makes_kernel(const Syntax& syntax, size_t begin, size_t end) {
  if (syntax.find_attribute("kernel", begin, end) != nullptr) return true;
  for (size_t i = begin; i < end; i++)
    if (syntax.at(i) == "kernel") return true;
  return false;
}

std::vector<KernelEntry> find_kernels(const Syntax& syntax) { return KernelList(syntax).find(); }

std::vector<FunctionConstant> find_function_constants(const Syntax& syntax, bool pass_others) {
  const Constants constants(syntax);
  std::vector<FunctionConstant> result;
  const std::vector<Declaration>& declarations = syntax.declarations();
  size_t d = 0;
  for (const Attribute& attribute : syntax.attributes()) {
    if (attribute.name != "function_constant") continue;
    // Both are in the order of the text.
    while (d < declarations.size() && declarations[d].end <= attribute.position) d++;
    const bool declared = d < declarations.size() && declarations[d].kind == Declaration::other &&
                          declarations[d].begin < attribute.position && syntax.at(attribute.position) == ";" &&
                          syntax.is_word_at(attribute.position - 1);
    if (!declared && pass_others) continue;
    if (!declared)
      syntax.text().refuse(attribute.at,
                           "function_constant is supported on `constant T name [[function_constant(n)]];` only; "
                           "write one and use `if (name)`");
    size_t type = declarations[d].begin;
    while (syntax.at(type) == "constant" || syntax.at(type) == "const" || syntax.at(type) == "static" ||
           syntax.at(type) == "constexpr")
      type++;
    const size_t name = attribute.position - 1;
    result.push_back({std::string(syntax.at(name)), syntax.spelled(type, name),
                      constants.evaluate(attribute.begin, attribute.end, {}, attribute.at), d});
  }
  return result;
}

Constants::Constants(const Syntax& syntax) : syntax_(syntax) {
  for (const Declaration& declaration : syntax.declarations()) {
    if (declaration.kind == Declaration::enumeration) {
      const size_t close = syntax.partner(declaration.body);
      if (close == nowhere) continue;
      std::string base = "-1";
      size_t offset = 1;
      for (const auto& [begin, end] : syntax.split(declaration.body + 1, close)) {
        if (syntax.at(begin + 1) == "=") base = syntax.spelled(begin + 2, end), offset = 0;
        expressions_.emplace(syntax.at(begin), concat("(", base, ") + ", offset++));
      }
    } else if (declaration.kind == Declaration::other) {
      for (size_t i = declaration.begin + 1; i < declaration.end && i < declaration.begin + 8; i++)
        if (syntax.at(i) == "=" && syntax.is_word_at(i - 1) && declaration.end - i < 100)
          expressions_.emplace(syntax.at(i - 1), syntax.spelled(i + 1, declaration.end - 1));
    }
  }
}

uint64_t Constants::evaluate(size_t begin, size_t end, const std::map<std::string, std::string>& substitutes,
                             const Token& at) const {
  std::string expression;
  const std::vector<Token>& tokens = syntax_.text().tokens();
  for (size_t i = begin; i < end && begin != nowhere; i++) {
    if (i > begin && tokens[i - 1].end != tokens[i].begin) expression += ' ';
    expression += syntax_.text().spelling(tokens[i]);
  }
  Names names{expressions_, substitutes};
  const std::optional<int64_t> value = Evaluator(expression, &names, look_up, 0).value();
  if (!value || *value < 0)
    syntax_.text().refuse(at, concat("`", syntax_.text().spelling(at), "` needs an integer constant, not `", expression,
                                     "`"));
  return uint64_t(*value);
}

}  // namespace upgc
