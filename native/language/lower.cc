#include "lower.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "../error.h"
#include "admit.h"
#include "library_use.h"

namespace upgc {
namespace {

/// Where a number that Metal reads as a float and C++ as a double.
bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool lacks_suffix(std::string_view number) {
  const bool hex = number.size() > 1 && (number[1] == 'x' || number[1] == 'X');
  if (!hex && (number.find('.') == std::string_view::npos && number.find_first_of("eE") == std::string_view::npos))
    return false;
  if (hex && number.find_first_of("pP") == std::string_view::npos) return false;
  const char last = number.back();
  return is_digit(last) || last == '.';
}

/// A name as long and not reserved, whatever this one means to the compiler.
std::string unreserved(std::string_view name) {
  const size_t underscores = std::min(name.find_first_not_of('_'), name.size());
  std::string result = std::string(underscores, 'u') + std::string(name.substr(underscores));
  for (size_t at; (at = result.find("__")) != std::string::npos;) result[at] = 'u';
  return result;
}

class Lowering {
 public:
  Lowering(const Syntax& syntax, const ConstantValues& values, AddressSpaces spaces, Swizzles swizzles)
      : syntax_(syntax), text_(syntax.text()), source_(text_.text()), values_(values),
        keeps_spaces_(spaces == AddressSpaces::kept), calls_swizzles_(swizzles == Swizzles::functions) {}

  std::string result() {
    drop_instantiations();
    drop_doubles();
    // Before the attributes: of two edits in one place the first is made.
    give_function_constants();
    strip_attributes();
    const std::set<std::string_view> reserved = own_reserved_names(syntax_);
    const std::set<std::string_view> swizzles = calls_swizzles_ ? swizzles_of_vectors() : std::set<std::string_view>();
    for (size_t i = 0; i < syntax_.code().size(); i++) {
      const Token& token = syntax_.code()[i];
      if (syntax_.at(i) == "threadgroup") lower_threadgroup(i);
      if (syntax_.at(i) == "constant" && keeps_spaces_) keep_constant(i);
      if (reserved.count(syntax_.at(i)) != 0) edits_.push_back({token.begin, token.end, unreserved(syntax_.at(i))});
      if (token.kind == TokenKind::number) lower_number(token);
      if (is_member(i) && swizzles.count(syntax_.at(i)) != 0) call_swizzle(i);
    }
    for (const Token& token : text_.tokens())
      if (token.kind == TokenKind::directive) lower_pragma(token);
    return edited();
  }

 private:
  struct Edit {
    size_t begin, end;
    std::string text;
  };

  /// Spaces in place of [begin, end), with its line ends.
  std::string blank(size_t begin, size_t end) const {
    std::string spaces = source_.substr(begin, end - begin);
    std::replace_if(spaces.begin(), spaces.end(), [](char c) { return c != '\n'; }, ' ');
    return spaces;
  }

  /// Puts `text` at `begin` and spaces up to `end`. Longer text moves what follows it on the line.
  void replace(size_t begin, size_t end, const std::string& text) {
    const std::string spaces = blank(begin, end);
    const size_t lines = spaces.find('\n');
    const size_t room = std::min(text.size(), lines == std::string::npos ? spaces.size() : lines);
    edits_.push_back({begin, end, text + spaces.substr(room)});
  }

  void drop(size_t begin, size_t end) {
    const size_t first = syntax_.code()[begin].begin, last = syntax_.code()[end - 1].end;
    dropped_.push_back({first, last, blank(first, last)});
  }

  /// The text with all edits; those within a dropped part are void.
  std::string edited() {
    const auto by_place = [](const Edit& a, const Edit& b) { return a.begin < b.begin; };
    std::stable_sort(edits_.begin(), edits_.end(), by_place);
    std::stable_sort(dropped_.begin(), dropped_.end(), by_place);
    std::vector<Edit> all;
    std::merge(dropped_.begin(), dropped_.end(), edits_.begin(), edits_.end(), std::back_inserter(all), by_place);
    std::string result;
    size_t at = 0;
    for (const Edit& edit : all) {
      if (edit.begin < at) continue;
      result.append(source_, at, edit.begin - at).append(edit.text);
      at = edit.end;
    }
    return result.append(source_, at, std::string::npos);
  }

  void strip_attributes() {
    for (const AttributeList& list : syntax_.attribute_lists())
      replace(list.begin, list.end, list.makes_kernel ? "kernel" : "");
  }

  /// The table of kernels instantiates those that the host asks for.
  void drop_instantiations() {
    for (const Declaration& declaration : syntax_.declarations()) {
      if (declaration.kind != Declaration::instantiation) continue;
      bool is_kernel = syntax_.find_attribute("kernel", declaration.head, declaration.end - 1) != nullptr;
      for (size_t i = declaration.head; i < declaration.end; i++) is_kernel |= syntax_.at(i) == "kernel";
      if (is_kernel) drop(declaration.begin, declaration.end);
    }
  }

  // ---- Definitions that only address spaces tell apart

  /// Tokens [begin, end) as they are off Apple, where there are no address spaces and `constant` is `const`.
  std::string erased(size_t begin, size_t end) const {
    std::string result;
    for (size_t i = begin; i < end; i++) {
      const std::string_view word = syntax_.at(i);
      const bool constant = word == "constant" || word == "const";
      if (word == "inline" || word == "static" || word == "METAL_FUNC" || (is_address_space(word) && !constant))
        continue;
      // `constant const T` is const once.
      if (constant && result.size() >= 6 && result.compare(result.size() - 6, 6, "const ") == 0) continue;
      result.append(constant ? "const" : word) += ' ';
    }
    return result;
  }

  /// A definition without what qualifies a method or constructor.
  std::string erased_definition(const Declaration& f) const {
    size_t rest = syntax_.partner(f.parameters) + 1;
    while (syntax_.at(rest) == "const" || is_address_space(syntax_.at(rest))) rest++;
    return erased(f.begin, syntax_.partner(f.parameters)) + erased(rest, f.end);
  }

  /// A parameter without its name and default.
  std::string erased_parameter(size_t begin, size_t end) const {
    for (size_t i = begin; i < end; i = syntax_.behind(i))
      if (syntax_.at(i) == "=") end = i;
    static const std::set<std::string_view> types = {"const", "constant", "int",  "unsigned", "long", "short",
                                                     "char",  "float",    "half", "bool",     "uint"};
    const bool named = end - begin > 1 && syntax_.is_word_at(end - 1) && types.count(syntax_.at(end - 1)) == 0 &&
                       syntax_.at(end - 2) != "::" && syntax_.at(end - 2) != "typename" &&
                       !is_address_space(syntax_.at(end - 2)) && syntax_.at(end - 2) != "const";
    return erased(begin, named ? end - 1 : end);
  }

  /// A namespace may be opened again; a class may not, so its number tells it.
  std::string scope_key(size_t scope) const {
    std::string key;
    for (; scope != 0 && !syntax_.scopes()[scope].is_class; scope = syntax_.scopes()[scope].parent)
      key = concat(syntax_.scopes()[scope].name, "::", key);
    return concat(scope, " ", key);
  }

  /// What C++ tells functions apart by; where address spaces are kept, but for that of the object of a method.
  std::string signature(const Declaration& f) const {
    const size_t close = syntax_.partner(f.parameters);
    std::string result = concat(scope_key(f.scope), " ", erased(f.begin, f.parameters), "(");
    if (keeps_spaces_) result += syntax_.spelled(f.parameters, close);
    else for (const auto& [begin, end] : syntax_.split(f.parameters + 1, close))
      result += erased_parameter(begin, end) + ", ";
    // A constructor is none for const objects.
    if (makes_object(f)) return result + ")";
    for (size_t i = close + 1; i < f.body && syntax_.at(i) != ":" && syntax_.at(i) != "->"; i++)
      if (syntax_.at(i) == "const" || (syntax_.at(i) == "constant" && syntax_.at(i - 1) == ")"))
        return result + ") const";
    return result + ")";
  }

  bool mentions_address_space(const Declaration& f) const {
    for (size_t i = f.begin; i < f.body; i++)
      if (is_address_space(syntax_.at(i))) return true;
    return false;
  }

  void drop_doubles() {
    std::map<std::string, const Declaration*> seen;
    for (const Declaration& f : syntax_.declarations()) {
      if (f.kind != Declaration::function || f.body == nowhere || syntax_.partner(f.parameters) == nowhere) continue;
      lower_method_qualifier(f);
      const auto [first, is_new] = seen.emplace(signature(f), &f);
      if (is_new || !(mentions_address_space(f) || mentions_address_space(*first->second))) continue;
      if (keeps_spaces_) {
        if (syntax_.scopes()[f.scope].is_class) drop(f.begin, f.end);
        continue;
      }
      const Token& name = syntax_.code()[f.parameters - 1];
      const size_t first_line = syntax_.code()[first->second->parameters - 1].line;
      if (erased_definition(f) != erased_definition(*first->second))
        text_.refuse(name, concat("`", text_.spelling(name), "` differs from that of line ", first_line,
                                  " in address spaces and in its text; here, where address spaces do not tell functions "
                                  "apart, give one another name"));
      // Text that is the same without any address space is a mistake, for the compiler to show.
      if (syntax_.spelled(f.begin, f.end) != syntax_.spelled(first->second->begin, first->second->end))
        drop(f.begin, f.end);
    }
  }

  /// Whether this is a constructor.
  bool makes_object(const Declaration& f) const {
    const Scope& scope = syntax_.scopes()[f.scope];
    const std::string_view name = syntax_.at(f.parameters - 1);
    return scope.is_class && scope.name.compare(0, name.size(), name) == 0 &&
           (scope.name.size() == name.size() || !is_word(scope.name[name.size()]));
  }

  /// `f() const constant {` would be const twice, and a constructor cannot be const at all.
  void lower_method_qualifier(const Declaration& f) {
    for (size_t i = syntax_.partner(f.parameters) + 1; i < f.body && syntax_.at(i) != ":"; i++) {
      if (keeps_spaces_ && is_address_space(syntax_.at(i)))
        replace(syntax_.code()[i].begin, syntax_.code()[i].end, "");
      if (syntax_.at(i) != "constant" || keeps_spaces_) continue;
      if (syntax_.at(i - 1) == "const" || syntax_.at(i + 1) == "const" || makes_object(f))
        replace(syntax_.code()[i].begin, syntax_.code()[i].end, "");
    }
  }

  // ---- Function constants

  void give_function_constants() {
    const std::vector<FunctionConstant> constants = find_function_constants(syntax_, keeps_spaces_);
    std::map<std::string, bool> given;
    for (const FunctionConstant& constant : constants) given[constant.name] = values_.count(constant.index) != 0;
    const std::set<std::string> asked = lower_questions(given);
    for (const FunctionConstant& constant : constants) {
      const auto value = values_.find(constant.index);
      const size_t end = syntax_.declarations()[constant.declaration].end - 1;
      const Token& name = syntax_.code()[end - 1];
      if (keeps_spaces_) {
        replace(name.end, syntax_.code()[end].begin, concat(" = ", constant.type, "(1)"));
        continue;
      }
      if (value == values_.end() && asked.count(constant.name) == 0)
        text_.refuse(name, concat("function constant ", constant.name, " (", constant.index,
                                  ") has no value; give one, or ask is_function_constant_defined(", constant.name, ")"));
      const std::string text = literal(constant, value == values_.end() ? 0 : value->second, name);
      replace(name.end, syntax_.code()[end].begin, " = " + text);
    }
  }

  /// The value as C++ writes it for the constant's type.
  std::string literal(const FunctionConstant& constant, double value, const Token& at) const {
    struct Range {
      double least, most;
    };
    static const std::map<std::string, Range> integers = {
        {"bool", {0, 1}},           {"char", {-128, 127}},          {"uchar", {0, 255}},
        {"short", {-32768, 32767}}, {"ushort", {0, 65535}},         {"int", {-0x1p31, 0x1p31 - 1}},
        {"uint", {0, 0x1p32 - 1}},  {"long", {-0x1p53, 0x1p53}},    {"ulong", {0, 0x1p53}},
        {"int8_t", {-128, 127}},    {"uint8_t", {0, 255}},          {"int16_t", {-32768, 32767}},
        {"uint16_t", {0, 65535}},   {"int32_t", {-0x1p31, 0x1p31 - 1}}, {"uint32_t", {0, 0x1p32 - 1}},
        {"int64_t", {-0x1p53, 0x1p53}}, {"uint64_t", {0, 0x1p53}},  {"size_t", {0, 0x1p53}},
    };
    const auto range = integers.find(constant.type);
    std::ostringstream out;
    if (range != integers.end()) {
      if (!(value == std::floor(value) && value >= range->second.least && value <= range->second.most))
        text_.refuse(at, concat("function constant ", constant.name, " is ", value, ", which is no ", constant.type));
      out << int64_t(value);
      return constant.type == "bool" ? (value != 0 ? "true" : "false") : out.str();
    }
    if (constant.type != "float" && constant.type != "half" && constant.type != "bfloat")
      text_.refuse(at, concat("function constants of type ", constant.type, " are not supported; use a scalar"));
    out.precision(9);
    out << std::showpoint << value << 'f';
    return constant.type == "float" ? out.str() : concat(constant.type, "(", out.str(), ")");
  }

  /// Answers is_function_constant_defined(x); returns the names asked for.
  std::set<std::string> lower_questions(const std::map<std::string, bool>& given) {
    std::set<std::string> asked;
    for (size_t i = 0; i < syntax_.code().size(); i++) {
      if (syntax_.at(i) != "is_function_constant_defined") continue;
      const std::string name(syntax_.at(i + 2));
      const auto found = given.find(name);
      if (syntax_.at(i + 1) != "(" || syntax_.at(i + 3) != ")" || found == given.end())
        text_.refuse(syntax_.code()[i], "is_function_constant_defined takes the name of a function constant");
      replace(syntax_.code()[i].begin, syntax_.code()[i + 3].end, found->second ? "true" : "false");
      asked.insert(name);
    }
    return asked;
  }

  // ---- Variables, numbers, pragmas

  void lower_threadgroup(size_t i) {
    if (!syntax_.starts_statement(i) || !syntax_.declares_variable(i)) return;
    if (keeps_spaces_) return keep_threadgroup(i);
    const Token& word = syntax_.code()[i];
    if (syntax_.at(i + 1) != "alignas" || syntax_.at(i + 2) != "(" || syntax_.partner(i + 2) == nowhere) {
      replace(word.begin, word.end, "upgc_shared");
      return;
    }
    // C++ wants alignas before the words of the declaration.
    const size_t end = syntax_.code()[syntax_.partner(i + 2)].end, alignment = syntax_.code()[i + 1].begin;
    replace(word.begin, end, concat(source_.substr(alignment, end - alignment), " upgc_shared"));
  }

  /// `threadgroup T a[2], b;` becomes `threadgroup T (&a)[2] = upgc_any(), (&b) = upgc_any();`.
  void keep_threadgroup(size_t i) {
    bool initialised = false;
    for (i++; i < syntax_.code().size(); i = syntax_.behind(i)) {
      const Token& token = syntax_.code()[i];
      const std::string_view next = syntax_.at(i + 1);
      const bool ends = syntax_.at(i) == "," || syntax_.at(i) == ";";
      if (syntax_.at(i) == "alignas") {
        const size_t close = syntax_.partner(i + 1);
        if (close != nowhere) replace(token.begin, syntax_.code()[close].end, "");
      } else if (syntax_.is_word_at(i) && !initialised &&
                 (next == "[" || next == "," || next == ";" || next == "=" || next == "{")) {
        edits_.push_back({token.begin, token.end, concat("(&", syntax_.at(i), ")")});
        initialised = next == "=" || next == "{";
      } else if (ends) {
        if (!initialised) edits_.push_back({token.begin, token.begin, " = upgc_any()"});
        initialised = false;
        if (syntax_.at(i) != ";") continue;
        // What follows has the columns that it had.
        edits_.push_back({token.end, token.end, concat("\n#line ", token.line, " ", quoted(text_.name()), "\n",
                                                       std::string(token.column, ' '))});
        return;
      }
    }
  }

  /// `constant` before a variable instead of a pointer or reference.
  void keep_constant(size_t i) {
    if (!syntax_.declares_variable(i)) return;
    size_t first = i;
    bool is_static = false;
    const auto specifies = [&](std::string_view word) {
      return word == "static" || word == "constexpr" || word == "inline" || word == "const";
    };
    while (first > 0 && specifies(syntax_.at(first - 1))) is_static |= syntax_.at(--first) == "static";
    const bool first_of_all = syntax_.starts_statement(first) || syntax_.at(first - 1) == ">";
    if (!first_of_all) return;
    const Token& word = syntax_.code()[i];
    replace(word.begin, word.end, is_static || !in_function(i) ? "upgc_pc" : "upgc_fc");
  }

  bool in_function(size_t i) const {
    const std::vector<Declaration>& all = syntax_.declarations();
    const auto behind = std::upper_bound(all.begin(), all.end(), i,
                                         [](size_t place, const Declaration& d) { return place < d.begin; });
    return behind != all.begin() && (behind - 1)->kind == Declaration::function && i < (behind - 1)->end;
  }

  bool is_member(size_t i) const { return i > 0 && (syntax_.at(i - 1) == "." || syntax_.at(i - 1) == "->"); }

  /// The swizzles of the text, but for those that are also names of its own.
  std::set<std::string_view> swizzles_of_vectors() const {
    std::set<std::string_view> swizzles;
    for (size_t i = 0; i < syntax_.code().size(); i++)
      if (is_member(i) && is_swizzle(syntax_.at(i))) swizzles.insert(syntax_.at(i));
    for (size_t i = 0; i < syntax_.code().size(); i++)
      if (!is_member(i)) swizzles.erase(syntax_.at(i));
    return swizzles;
  }

  void call_swizzle(size_t i) {
    const Token& word = syntax_.code()[i];
    // `=` but not `==`, or an operator and `=`.
    const std::string_view rest = std::string_view(source_).substr(word.end);
    const size_t start = rest.find_first_not_of(" \t\n");
    const std::string_view next = start == std::string_view::npos ? "" : rest.substr(start, 3);
    const bool assigned = (next.size() > 1 && next[0] == '=' && next[1] != '=') ||
                          (next.size() > 1 && next[1] == '=' && std::strchr("+-*/%&|^", next[0]) != nullptr) ||
                          next == "<<=" || next == ">>=";
    edits_.push_back({word.begin, word.end, concat(assigned ? "upgc_put_" : "upgc_get_", syntax_.at(i), "()")});
  }

  void lower_number(const Token& token) {
    const std::string_view number = text_.spelling(token);
    const bool hex = number.size() > 1 && (number[1] == 'x' || number[1] == 'X');
    // C++ leaves suffixes without an underscore to itself.
    if (!hex && ends_with(number, "bf")) edits_.push_back({token.end - 2, token.end, "_bf"});
    if (!hex && ends_with(number, "H")) replace(token.end - 1, token.end, "h");
    if (keeps_spaces_ || !lacks_suffix(number)) return;
    const size_t size = number.size();
    const char next = token.end < source_.size() ? source_[token.end] : '\0';
    const bool plain = number.find_first_of("eExX'") == std::string_view::npos;
    if (next == ' ') {
      edits_.push_back({token.end, token.end + 1, "f"});
    } else if (plain && size > 2 && number[0] == '0' && number[1] == '.') {
      edits_.push_back({token.begin, token.end, concat(number.substr(1), "f")});
    } else if (plain && size > 2 && number.back() == '0' && number.find('.') != std::string_view::npos) {
      edits_.push_back({token.end - 1, token.end, "f"});
    } else {
      edits_.push_back({token.end, token.end, "f"});
    }
  }

  void lower_pragma(const Token& token) {
    const std::string_view line = text_.spelling(token);
    // clang expands no macros in it when it only preprocesses.
    if (keeps_spaces_ && line.find("unroll") != std::string_view::npos) return replace(token.begin, token.end, "");
    const size_t at = line.find("unroll(");
    if (at == std::string_view::npos || line.find("clang") != std::string_view::npos) return;
    const std::string_view argument = line.substr(at + 7, line.find(')') == std::string_view::npos ? 0 : line.find(')') - at - 7);
    if (argument == "full" || argument == "enable") replace(token.begin, token.end, "#pragma unroll");
    if (argument == "disable") replace(token.begin, token.end, "#pragma nounroll");
  }

  const Syntax& syntax_;
  const MetalText& text_;
  const std::string& source_;
  const ConstantValues& values_;
  const bool keeps_spaces_;
  const bool calls_swizzles_;
  std::vector<Edit> edits_;
  std::vector<Edit> dropped_;
};

}  // namespace

std::string lower(const Syntax& syntax, const ConstantValues& values, AddressSpaces spaces, Swizzles swizzles) {
  return Lowering(syntax, values, spaces, swizzles).result();
}

std::string lower_names(const Syntax& syntax, const std::string& expression) {
  const std::set<std::string_view> reserved = own_reserved_names(syntax);
  std::string result;
  for (size_t at = 0; at < expression.size();) {
    size_t end = at;
    while (end < expression.size() && is_word(expression[end])) end++;
    const std::string_view word = std::string_view(expression).substr(at, end - at);
    result.append(reserved.count(word) != 0 ? unreserved(word) : std::string(word));
    if (end < expression.size()) result += expression[end];
    at = end + 1;
  }
  return result;
}

}  // namespace upgc
