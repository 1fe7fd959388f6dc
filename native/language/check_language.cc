#include <algorithm>
#include <map>

#include "../error.h"
#include "admit.h"
#include "check_rules.h"
#include "kernels.h"
#include "positions.h"

namespace upgc {
namespace {

const std::map<std::string_view, uint64_t>& number_sizes() {
  static const std::map<std::string_view, uint64_t> sizes = {
      {"bool", 1},    {"char", 1},    {"uchar", 1},   {"int8_t", 1},   {"uint8_t", 1},  {"short", 2},    {"ushort", 2},
      {"int16_t", 2}, {"uint16_t", 2}, {"half", 2},   {"bfloat", 2},   {"int", 4},      {"uint", 4},     {"int32_t", 4},
      {"uint32_t", 4}, {"float", 4},  {"long", 8},    {"ulong", 8},    {"int64_t", 8},  {"uint64_t", 8}, {"size_t", 8},
      {"unsigned", 4}, {"signed", 4}};
  return sizes;
}

/// The number type without its count of components; empty when the word is none.
std::string_view scalar_of(std::string_view word) {
  if (number_sizes().count(word) != 0) return word;
  if (word.rfind("packed_", 0) == 0) word.remove_prefix(7);
  if (word.size() < 2 || word.back() < '2' || word.back() > '4') return {};
  word.remove_suffix(1);
  const bool has_vectors = !word.empty() && !is_digit(word.back()) && word.find('_') == word.npos &&
                           word != "unsigned" && word != "signed" && number_sizes().count(word) != 0;
  return has_vectors ? word : std::string_view();
}

class LanguageRules {
 public:
  LanguageRules(const Syntax& syntax, const std::set<std::string>& library, Findings& findings)
      : syntax_(syntax), library_(library), dependent_(template_types(syntax)),
        findings_(findings) {
    for (const Scope& scope : syntax.scopes()) {
      if (scope.is_class) classes_.insert(scope.name);
      in_class_.push_back(scope.is_class || (scope.parent != nowhere && in_class_[scope.parent]));
    }
    for (const Declaration& d : syntax.declarations()) {
      const bool is_function = d.kind == Declaration::function;
      if (is_function) declared_.insert(syntax.at(d.parameters - 1));
      is_kernel_.push_back(is_function && makes_kernel(syntax, d.head, d.parameters));
    }
  }

  void check() {
    for (const Attribute& attribute : syntax_.attributes())
      if (!is_attribute(attribute.name) && !is_unsupported_attribute(attribute.name))
        findings_.add("attribute-unknown", attribute.at,
                      concat("[[", attribute.name.substr(0, 80),
                             "]] is no attribute of compute kernels that upgc knows"),
                      "look for a slip in its name, or remove it");
    for (const Declaration& declaration : syntax_.declarations()) check_declaration(declaration);
    for (size_t i = 0; i < syntax_.code().size(); i++) check_word(i);
    check_calls();
  }

 private:
  std::string_view at(size_t i) const { return syntax_.at(i); }
  const Token& token(size_t i) const { return syntax_.code()[i]; }

  // ---- Declarations

  bool in_class(const Declaration& d) const { return in_class_[d.scope]; }
  bool is_kernel(const Declaration& d) const { return is_kernel_[&d - syntax_.declarations().data()]; }

  void check_declaration(const Declaration& d) {
    if (d.kind == Declaration::other) check_variable(d);
    if (d.kind != Declaration::function || d.body == nowhere) return;
    const size_t close = syntax_.partner(d.parameters);
    if (close == nowhere) return;
    if (!is_kernel(d))
      for (const auto& [begin, end] : syntax_.split(d.parameters + 1, close))
        require_space(begin, end, "this parameter");
    require_space(d.head, d.parameters, "what the function returns");
    for (size_t i = d.body + 1; i + 1 < d.end; i++) check_statement(i, d);
  }

  void require_space(size_t begin, size_t end, const char* what) {
    const size_t pointer = pointer_without_space(syntax_, dependent_, begin, end);
    if (pointer == nowhere) return;
    const std::string_view pointee = at(pointer - 1);
    findings_.add("missing-address-space", token(pointer),
                  concat("the ", at(pointer) == "*" ? "pointer" : "reference", " of ", what, " names no address space"),
                  concat("write `thread ", pointee, at(pointer),
                         "`, or device, constant or threadgroup: what it points to in memory"));
  }

  /// A declaration that is no function, class or enumeration.
  void check_variable(const Declaration& d) {
    static const std::set<std::string_view> no_variables = {"using", "typedef", "static_assert", "struct", "class",
                                                            "union", "enum", "namespace", "friend", "template",
                                                            "extern", "public", "private", "protected", "kernel"};
    if (syntax_.find_attribute("function_constant", d.begin, d.end) != nullptr) return;
    if (d.head != d.begin || no_variables.count(at(d.begin)) != 0 || d.parameters != nowhere) return;
    size_t name = nowhere, words = 0;
    bool constant = false, other_space = false;
    size_t i = d.begin;
    const auto ends = [&] { return at(i) == "=" || at(i) == ";" || at(i) == "[" || at(i) == "{" || at(i) == ":"; };
    for (; i < d.end && !ends(); i = syntax_.behind(i)) {
      constant |= at(i) == "constant";
      other_space |= is_address_space(at(i)) && at(i) != "constant";
      if (syntax_.is_word_at(i)) name = i, words++;
    }
    if (i >= d.end || name == nowhere || words < 2) return;
    if (in_class(d)) {
      if (at(d.begin) != "static") require_space(d.begin, name, "this member");
      return;
    }
    const bool is_sampler = syntax_.spelled(d.begin, name).find("sampler") != std::string::npos;
    if (constant || is_sampler) return;
    findings_.add("program-variable", token(name),
                  concat(at(name), " is declared outside of functions",
                         other_space ? " in an address space that only a function or a buffer has" : "",
                         " and is not constant"),
                  "write `constant` before its type if it never changes; else give it to the kernel in a buffer");
  }

  // ---- Statements

  void check_statement(size_t i, const Declaration& function) {
    if (!syntax_.is_word_at(i)) return;
    const std::string_view word = at(i);
    if (word == "threadgroup") return check_threadgroup(i, function);
    if (word == "static") return check_static(i);
    // One look at a row of them, which `starts_statement` passes over.
    const bool repeats = (word == "const" || word == "volatile") && at(i - 1) == word;
    if (repeats) return;
    if (syntax_.starts_statement(i) || (at(i - 1) == "(" && at(i - 2) == "for")) check_local_pointer(i);
    check_cast(i);
  }

  void check_threadgroup(size_t i, const Declaration& function) {
    if (!syntax_.starts_statement(i) || !syntax_.declares_variable(i)) return;
    if (!is_kernel(function))
      findings_.add("threadgroup-variable", token(i),
                    concat(at(function.parameters - 1), " is no kernel, so it cannot declare threadgroup memory"),
                    "declare it in the kernel and give a `threadgroup` pointer to it");
    for (size_t j = i + 1; j < function.end && at(j) != ";"; j = syntax_.behind(j))
      if (at(j) == "=" || (at(j) == "{" && j > i + 2)) {
        findings_.add("threadgroup-initialiser", token(j),
                      "a variable in threadgroup memory is initialised by no thread or by all of them at once",
                      "let one thread write the value, then call threadgroup_barrier(mem_flags::mem_threadgroup)");
        return;
      }
  }

  void check_static(size_t i) {
    for (size_t j = i; j < syntax_.code().size() && at(j) != ";" && at(j) != "=" && at(j) != "{"; j = syntax_.behind(j))
      if (at(j) == "const" || at(j) == "constexpr" || at(j) == "constant" || at(j) == "(" ||
          (at(j) == "static" && j > i))
        return;
    findings_.add("static-variable", token(i), "a function has no variable that outlives its call",
                  "keep the value in a buffer, or write `static constant` if it never changes");
  }

  /// `float* p = x;`: with a type that is known to be one, this is no product.
  void check_local_pointer(size_t i) {
    bool is_const = false;
    while (at(i) == "const" || at(i) == "constexpr") is_const = true, i++;
    const size_t type = i;
    if (!syntax_.is_word_at(type) || dependent_.count(at(type)) != 0 || at(type) == "auto") return;
    while (at(i + 1) == "::" && syntax_.is_word_at(i + 2)) i += 2;
    if (at(i + 1) == "<") {
      const size_t end = syntax_.behind_angles(i + 1);
      if (end == nowhere) return;
      i = end - 1;
    }
    const bool is_type = is_number_type(at(i)) || classes_.count(std::string(at(i))) != 0 || is_const;
    if (at(i + 1) == "const") i++;
    const size_t pointer = i + 1;
    if (!is_type || (at(pointer) != "*" && at(pointer) != "&")) return;
    i = pointer;
    while (at(i) == "*" || at(i) == "&" || at(i) == "const") i++;
    if (!syntax_.is_word_at(i) || (at(i + 1) != "=" && at(i + 1) != ";") || at(i + 2) == "=") return;
    findings_.add("missing-address-space", token(pointer),
                  concat("the ", at(pointer) == "*" ? "pointer" : "reference", " ", at(i), " names no address space"),
                  concat("write `device ", at(type), at(pointer), " ", at(i),
                         "`, or constant, threadgroup or thread: what it points to in memory"));
  }

  /// `(float*)x`, `reinterpret_cast<float*>(x)`.
  void check_cast(size_t i) {
    const bool bracketed = at(i - 1) == "(" && !(i > 1 && (at(i - 2) == "sizeof" || at(i - 2) == "alignof"));
    const bool named = at(i - 1) == "<" && (at(i - 2) == "reinterpret_cast" || at(i - 2) == "static_cast");
    if (!bracketed && !named) return;
    if (at(i) == "const") i++;
    if (!is_number_type(at(i)) && at(i) != "void") return;
    size_t end = i + 1;
    if (at(end) == "const") end++;
    if (at(end) != "*" || at(end + 1) != (bracketed ? ")" : ">")) return;
    findings_.add("missing-address-space", token(end), "the pointer of this cast names no address space",
                  concat("write `device ", at(i), "*`, or constant, threadgroup or thread: where the memory is"));
  }

  // ---- Words

  void check_word(size_t i) {
    if (at(i) == "(") calls_.push_back(i);
    if (at(i) == ")" && !calls_.empty()) calls_.pop_back();
    if (at(i) == "[") return check_lambda(i);
    if (!syntax_.is_word_at(i)) return;
    const std::string_view word = at(i);
    check_keyword(i, word);
    check_type_word(i, word);
    if (word == "std" && at(i + 1) == "::")
      findings_.add("std-name", token(i),
                    concat("std::", at(i + 2), " does not exist: Metal has no C++ standard library"),
                    concat("use metal::", at(i + 2), " if Metal's library has it"));
    check_reserved(i, word);
    check_atomics(i, word);
    if ((word == "isnan" || word == "isinf" || word == "isfinite") && at(i + 1) == "(" && declared_.count(word) == 0)
      findings_.add("fast-math", token(i), concat(word, " may always give one answer under Metal's default fast math"),
                    "compile with MTLMathModeSafe (or -fno-fast-math), or test the bits of as_type<uint>(x)");
  }

  void check_keyword(size_t i, std::string_view word) {
    static const std::map<std::string_view, std::pair<const char*, const char*>> own = {
        {"goto", {"is not Metal", "use a loop, break or return"}},
        {"virtual", {"is not Metal: which function is called is known when the text is compiled", "use a template"}},
        {"register", {"is not Metal", "remove it"}}};
    const auto found = own.find(word);
    if (found != own.end()) {
      findings_.add("keyword", token(i), concat("`", word, "` ", found->second.first), found->second.second);
      return;
    }
    const char* why = word == "extern" ? nullptr : why_not_metal(word);
    if (why == nullptr) return;
    // "is not Metal: there is no heap; use a buffer": the reason and what to do.
    const std::string reason = why;
    const size_t comma = reason.rfind("; ");
    findings_.add("keyword", token(i), concat("`", word, "` ", reason.substr(0, comma)), reason.substr(comma + 2));
  }

  void check_type_word(size_t i, std::string_view word) {
    const bool is_double = word == "double" || word == "double2" || word == "double3" || word == "double4";
    const bool is_long_long = word == "long" && at(i + 1) == "long";
    if (is_double)
      findings_.add("wide-type", token(i), concat(at(i - 1) == "long" ? "long " : "", word, " is no type of Metal"),
                    "use float; for more precision keep a second float with the rest");
    if (is_long_long)
      findings_.add("wide-type", token(i), "long long is no type of Metal", "use long or ulong: they have 64 bits");
  }

  /// Keywords of Metal, and only of Metal, as names of variables.
  void check_reserved(size_t i, std::string_view word) {
    static const std::set<std::string_view> keywords = {"kernel", "vertex", "fragment", "device", "threadgroup",
                                                        "constant", "thread", "half", "threadgroup_imageblock",
                                                        "ray_data", "object_data"};
    if (keywords.count(word) == 0 || i == 0 || !is_number_type(at(i - 1))) return;
    const std::string_view next = at(i + 1);
    if (next == "=" || next == ";" || next == "," || next == ")" || next == "[")
      findings_.add("reserved-name", token(i), concat("`", word, "` is a keyword of Metal and no name"),
                    "give it another name");
  }

  void check_atomics(size_t i, std::string_view word) {
    if (word.rfind("memory_order_", 0) == 0 && word != "memory_order_relaxed" && !calls_.empty() && calls_.back() > 0) {
      const std::string_view called = at(calls_.back() - 1);
      if (called.rfind("atomic_", 0) == 0 && called.size() > 9 && called.substr(called.size() - 9) == "_explicit")
        findings_.add("memory-order", token(i), concat(called, " takes memory_order_relaxed only"),
                      "write memory_order_relaxed; order other memory with a barrier or atomic_thread_fence");
    }
    static const std::set<std::string_view> no_types = {
        "atomic_char", "atomic_uchar", "atomic_short", "atomic_ushort", "atomic_half", "atomic_bfloat", "atomic_double",
        "atomic_long", "atomic_size_t", "atomic_flag"};
    static const std::set<std::string_view> no_parts = {"char", "uchar", "short", "ushort", "half", "bfloat", "long",
                                                        "int8_t", "uint8_t", "int16_t", "uint16_t", "int64_t"};
    const bool named = no_types.count(word) != 0 && classes_.count(std::string(word)) == 0;
    const std::string_view part = at(i + 2);
    const bool of_part = (word == "atomic" || word == "_atomic") && at(i + 1) == "<" && at(i + 3) == ">" &&
                         (no_parts.count(part) != 0 || component_count(part) > 1);
    if (named || of_part)
      findings_.add("atomic-type", token(i),
                    concat(syntax_.spelled(i, of_part ? i + 4 : i + 1), " is no type of Metal"),
                    "use atomic_int, atomic_uint, atomic_bool, atomic_float or atomic_ulong");
    static const std::set<std::string_view> calls = {
        "atomic_load", "atomic_store", "atomic_exchange", "atomic_compare_exchange_weak",
        "atomic_compare_exchange_strong", "atomic_compare_exchange_strong_explicit", "atomic_fetch_add",
        "atomic_fetch_sub", "atomic_fetch_and", "atomic_fetch_or", "atomic_fetch_xor", "atomic_fetch_min",
        "atomic_fetch_max"};
    if (calls.count(word) != 0 && at(i + 1) == "(" && declared_.count(word) == 0) {
      const bool strong = word.find("strong") != word.npos;
      findings_.add("atomic-call", token(i), concat(word, " does not exist in Metal"),
                    strong ? "use atomic_compare_exchange_weak_explicit in a loop"
                           : concat("use ", word, "_explicit(..., memory_order_relaxed)"));
    }
  }

  void check_lambda(size_t i) {
    const size_t close = syntax_.partner(i);
    if (close == nowhere || i == 0) return;
    const bool subscript = syntax_.is_word_at(i - 1) ? at(i - 1) != "return" : at(i - 1) == ")" || at(i - 1) == "]" ||
                                                                                at(i - 1) == ">" || at(i - 1) == "&" ||
                                                                                token(i - 1).kind == TokenKind::string;
    if (subscript || (at(close + 1) != "(" && at(close + 1) != "{")) return;
    findings_.add("lambda", token(i), "lambda expressions do not compile up to macOS 14", "write a function");
  }

  // ---- Calls

  /// Whether the word at `i` calls a function by its plain name.
  bool calls(size_t i) const {
    static const std::set<std::string_view> before_call = {"return", "else", "do", "case"};
    if (!syntax_.is_word_at(i) || i == 0) return false;
    const std::string_view before = at(i - 1);
    if (before == "." || before == "->" || before == "::" || before == ">" || before == "~") return false;
    return !syntax_.is_word_at(i - 1) || before_call.count(before) != 0;
  }

  void check_calls() {
    // Only functions that there is one of: of overloads and templates the compiler chooses one, and the library's
    // functions are overloads of a function of their name.
    std::map<std::string_view, size_t> by_name;
    std::set<std::string_view> several;
    const std::vector<Declaration>& all = syntax_.declarations();
    for (size_t d = 0; d < all.size(); d++) {
      if (all[d].kind != Declaration::function || all[d].body == nowhere) continue;
      const std::string_view name = at(all[d].parameters - 1);
      if (!by_name.emplace(name, d).second || all[d].head != all[d].begin || in_class(all[d])) several.insert(name);
    }
    for (const std::string_view name : several) by_name.erase(name);
    std::map<size_t, std::vector<std::pair<size_t, size_t>>> callees;  // the function called, and where
    for (const auto& [name, d] : by_name) collect_calls(d, by_name, callees[d]);
    for (const auto& [d, list] : callees)
      for (const auto& [callee, place] : list)
        if (is_kernel(all[callee]))
          findings_.add("kernel-called", token(place), concat(at(place), " is a kernel; only a host can call it"),
                        "put what both need into a function that is no kernel");
    find_recursion(callees);
  }

  /// Whether the library may have a function of this name. Those of simdgroups and quads have theirs put together.
  bool is_library(std::string_view name) const {
    return name.rfind("simd_", 0) == 0 || name.rfind("quad_", 0) == 0 || library_.count(std::string(name)) != 0;
  }

  void collect_calls(size_t d, const std::map<std::string_view, size_t>& by_name,
                     std::vector<std::pair<size_t, size_t>>& callees) {
    const Declaration& function = syntax_.declarations()[d];
    for (size_t i = function.body; i < function.end; i++) {
      if (at(i + 1) != "(" || !calls(i)) continue;
      const auto found = by_name.find(at(i));
      const bool is_kernel_called = found != by_name.end() && is_kernel(syntax_.declarations()[found->second]);
      if (found != by_name.end() && (is_kernel_called || !is_library(at(i))))
        callees.emplace_back(found->second, i);
    }
  }

  /// A call back into a function that is being called: depth first, without a stack that a text could overflow.
  void find_recursion(const std::map<size_t, std::vector<std::pair<size_t, size_t>>>& callees) {
    enum State { fresh, open, done };
    std::map<size_t, State> states;
    for (const auto& [root, ignored] : callees) {
      if (states[root] != fresh) continue;
      std::vector<std::pair<size_t, size_t>> path = {{root, 0}};  // a function, and which of its calls is next
      states[root] = open;
      while (!path.empty()) {
        const auto [d, next] = path.back();
        const auto list = callees.find(d);
        if (list == callees.end() || next == list->second.size()) {
          states[d] = done;
          path.pop_back();
          continue;
        }
        path.back().second++;
        const auto [callee, place] = list->second[next];
        if (states[callee] == open) {
          const std::string_view caller = at(syntax_.declarations()[d].parameters - 1);
          findings_.add("recursion", token(place),
                        callee == d ? concat(caller, " calls itself")
                                    : concat(caller, " calls ", at(place), ", by which it is called"),
                        "write a loop, or a template whose argument counts down");
        } else if (states[callee] == fresh) {
          states[callee] = open;
          path.emplace_back(callee, 0);
        }
      }
    }
  }

  const Syntax& syntax_;
  const std::set<std::string>& library_;
  const std::set<std::string_view> dependent_;
  std::set<std::string> classes_;
  std::set<std::string_view> declared_;
  /// By scope, by declaration.
  std::vector<bool> in_class_, is_kernel_;
  /// The brackets that are open where `check_word` is.
  std::vector<size_t> calls_;
  Findings& findings_;
};

}  // namespace

bool is_unsupported_attribute(std::string_view name) {
  static const std::set<std::string_view> names = {
      "texture", "sampler", "id", "stage_in", "attribute", "vertex", "fragment", "position", "vertex_id", "instance_id",
      "base_vertex", "base_instance", "color", "depth", "user", "point_size", "point_coord", "front_facing", "flat",
      "early_fragment_tests", "patch", "sample_id", "sample_mask", "visible", "stitchable", "intersection", "payload",
      "raster_order_group", "mesh", "object", "primitive_id", "viewport_array_index", "render_target_array_index",
      "clip_distance", "barycentric_coord", "center_perspective", "center_no_perspective", "invariant",
      "imageblock_data"};
  return names.count(name) != 0;
}

bool is_number_type(std::string_view word) { return !scalar_of(word).empty(); }

unsigned component_count(std::string_view type) {
  return number_sizes().count(type) != 0 || scalar_of(type).empty() ? 1 : unsigned(type.back() - '0');
}

uint64_t size_of_number(std::string_view type) {
  const std::string_view scalar = scalar_of(type);
  if (scalar.empty()) return 0;
  const unsigned count = component_count(type);
  const bool padded = count == 3 && type.rfind("packed_", 0) != 0;
  return number_sizes().at(scalar) * (padded ? 4 : count);
}

std::set<std::string_view> template_types(const Syntax& syntax) {
  std::set<std::string_view> names;
  for (size_t i = 1; i + 1 < syntax.code().size(); i++)
    if ((syntax.at(i) == "typename" || syntax.at(i) == "class") && (syntax.at(i - 1) == "<" || syntax.at(i - 1) == ","))
      names.insert(syntax.at(i + 1));
  return names;
}

size_t pointer_without_space(const Syntax& syntax, const std::set<std::string_view>& dependent, size_t begin,
                             size_t end) {
  std::string_view type;
  bool has_space = false;
  for (size_t i = begin; i < end;) {
    const std::string_view word = syntax.at(i);
    if (word == "=" || word == "operator" || word == "decltype" || word == "typename") return nowhere;
    if (is_address_space(word)) has_space = true;
    else if (syntax.is_word_at(i) && word != "const" && word != "volatile") type = word;
    if (word == "*" || word == "&") {
      const bool is_function = syntax.at(i - 1) == "(" && word == "*";
      const bool known = has_space || is_function || type.empty() || type == "auto" || dependent.count(type) != 0;
      return known ? nowhere : i;
    }
    i = word == "(" ? i + 1 : syntax.behind(i);
  }
  return nowhere;
}

void check_language_rules(const Syntax& syntax, const std::set<std::string>& library, Findings& findings) {
  LanguageRules(syntax, library, findings).check();
}

}  // namespace upgc
