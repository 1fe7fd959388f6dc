#include <algorithm>
#include <map>

#include "../error.h"
#include "check_rules.h"
#include "kernels.h"
#include "positions.h"

namespace upgc {
namespace {

constexpr uint64_t max_index = 30;
constexpr uint64_t max_threads = 1024;
constexpr uint64_t max_threadgroup_bytes = 32768;

/// Positions with axes, which may be vectors. MSL names the first seven where it says that their sizes must agree.
const std::set<std::string_view> with_axes = {
    "thread_position_in_grid", "threads_per_grid", "thread_position_in_threadgroup", "threads_per_threadgroup",
    "threadgroup_position_in_grid", "dispatch_threads_per_threadgroup", "threadgroups_per_grid"};
const std::set<std::string_view> also_vectors = {"grid_origin", "grid_size"};

const std::set<std::string_view> position_scalars = {"uint", "ushort", "unsigned", "unsigned int", "unsigned short",
                                                     "uint32_t", "uint16_t"};

bool is_unsupported_type(std::string_view word) {
  static const std::set<std::string_view> types = {
      "sampler", "texture1d", "texture1d_array", "texture2d", "texture2d_array", "texture2d_ms", "texture2d_ms_array",
      "texture3d", "texturecube", "texturecube_array", "texture_buffer", "depth2d", "depth2d_array", "depth2d_ms",
      "depth2d_ms_array", "depthcube", "depthcube_array", "visible_function_table", "intersection_function_table",
      "acceleration_structure", "tensor"};
  return types.count(word) != 0;
}

/// A parameter as far as the rules look at it.
struct Parameter {
  size_t begin, end;
  /// `nowhere` when it has none.
  size_t name = nowhere, pointer = nowhere;
  bool is_array = false;
  std::string type, space;
  const Attribute* kind = nullptr;
};

class KernelRules {
 public:
  KernelRules(const Syntax& syntax, const std::set<std::string_view>& dependent, Findings& findings)
      : syntax_(syntax), constants_(syntax), dependent_(dependent), findings_(findings) {}

  void check(const Declaration& kernel) {
    is_template_ = syntax_.at(kernel.begin) == "template";
    check_result(kernel);
    check_max_threads(kernel);
    const size_t close = syntax_.partner(kernel.parameters);
    if (close == nowhere) return;
    std::vector<Parameter> parameters;
    for (const auto& [begin, end] : syntax_.split(kernel.parameters + 1, close))
      if (syntax_.spelled(begin, end) != "void") parameters.push_back(read(begin, end));
    for (Parameter& parameter : parameters) check_parameter(parameter);
    check_indices(parameters);
    check_sizes(parameters);
    check_widths(parameters);
    check_threadgroup_memory(kernel);
  }

 private:
  static bool makes_argument(const Attribute& attribute) {
    return attribute.name == "buffer" || attribute.name == "threadgroup" || is_position_attribute(attribute.name);
  }

  const Token& token(size_t i) const { return syntax_.code()[i]; }

  void check_result(const Declaration& kernel) {
    static const std::set<std::string_view> specifiers = {"kernel", "static", "inline", "constexpr", "METAL_FUNC",
                                                          "extern"};
    size_t i = kernel.head;
    while (i < kernel.parameters && (specifiers.count(syntax_.at(i)) != 0 || syntax_.at(i) == "__attribute__"))
      i = syntax_.at(i) == "__attribute__" ? syntax_.behind(i + 1) : i + 1;
    if (i + 1 < kernel.parameters && (syntax_.at(i) != "void" || i + 2 != kernel.parameters))
      findings_.add("kernel-returns", token(i),
                    concat("kernel ", syntax_.at(kernel.parameters - 1), " returns ",
                           syntax_.spelled(i, kernel.parameters - 1), "; a kernel returns void"),
                    "write the result into a `device` buffer and return void");
  }

  /// The value of an attribute's argument; nothing when a template's arguments decide or a finding says why not.
  std::optional<uint64_t> value_of(const Attribute& attribute) {
    // Enough for any text; each may take a thousand steps.
    if (++evaluated_ > 10000) return std::nullopt;
    try {
      return constants_.evaluate(attribute.begin, attribute.end, {}, attribute.at);
    } catch (const Error&) {
      if (!is_template_)
        findings_.add("index-constant", attribute.at,
                      concat("[[", attribute.name, "]] needs an integer constant of 0 or more"),
                      concat("write [[", attribute.name, "(n)]]"));
      return std::nullopt;
    }
  }

  void check_max_threads(const Declaration& kernel) {
    const Attribute* most =
        syntax_.find_attribute("max_total_threads_per_threadgroup", kernel.begin, kernel.parameters);
    if (most == nullptr) return;
    const auto value = value_of(*most);
    if (value && (*value == 0 || *value > max_threads))
      findings_.add("max-threads", most->at, concat("no GPU runs ", *value, " threads in a threadgroup; most run ",
                                                    max_threads),
                    concat("give 1 to ", max_threads));
  }

  Parameter read(size_t begin, size_t end) {
    Parameter result{begin, end};
    for (size_t i = begin; i < end && syntax_.at(i) != "=";) {
      const std::string_view word = syntax_.at(i);
      if ((word == "*" || word == "&") && result.pointer == nowhere) result.pointer = i;
      if (word == "[" && result.name != nowhere) {
        // `constant int x[3]` is a pointer.
        if (result.pointer == nowhere) result.pointer = i, result.is_array = true;
        break;
      }
      if (word == "<") {
        i = syntax_.behind(i);
        continue;
      }
      if (is_address_space(word) && result.pointer == nowhere) result.space = word;
      if (syntax_.is_word_at(i)) result.name = i;
      i++;
    }
    const bool points = result.pointer != nowhere && !result.is_array;
    const size_t type_end = points ? result.pointer : result.name != nowhere ? result.name : end;
    for (size_t i = begin; i < type_end; i++) {
      const std::string_view word = syntax_.at(i);
      if (is_address_space(word) || word == "const" || word == "volatile" || word == "(") continue;
      if ((word == "metal" && syntax_.at(i + 1) == "::") || (word == "::" && result.type.empty())) continue;
      if (!result.type.empty() && syntax_.is_word_at(i) && is_word(result.type.back())) result.type += ' ';
      result.type += word;
    }
    return result;
  }

  std::string_view name_of(const Parameter& p) const { return p.name == nowhere ? "" : syntax_.at(p.name); }
  const Token& place_of(const Parameter& p) const { return token(p.name == nowhere ? p.begin : p.name); }

  void check_parameter(Parameter& p) {
    if (is_unsupported_type(p.type.substr(0, p.type.find('<')))) return;
    bool has_unknown = false;
    const auto [first, last] = syntax_.attributes_in(p.begin, p.end);
    for (auto attribute = first; attribute != last; ++attribute) {
      has_unknown |= !is_attribute(attribute->name);
      if (!makes_argument(*attribute)) continue;
      if (p.kind != nullptr)
        findings_.add("attribute-conflict", attribute->at,
                      concat("parameter ", name_of(p), " cannot be both [[", p.kind->name, "]] and [[", attribute->name,
                             "]]"),
                      "keep one of them");
      else p.kind = &*attribute;
    }
    if (has_unknown) return;
    const bool is_memory = p.kind != nullptr && !is_position_attribute(p.kind->name);
    if (p.kind != nullptr && !is_memory) return check_position(p);
    if (p.pointer == nowhere) return check_value(p);
    check_space(p);
  }

  void check_value(const Parameter& p) {
    if (p.kind == nullptr)
      findings_.add("attribute-missing", place_of(p),
                    concat("nothing says what parameter ", name_of(p), " of a kernel is"),
                    concat("for a value of the host write `constant ", p.type, "& ", name_of(p),
                           " [[buffer(n)]]`, for a position an attribute like [[thread_position_in_grid]]"));
    else
      findings_.add("buffer-by-value", place_of(p),
                    concat("parameter ", name_of(p), " has [[", p.kind->name,
                           "]] but is neither pointer nor reference"),
                    p.kind->name == "buffer"
                        ? concat("write `constant ", p.type, "& ", name_of(p), "` or `device ", p.type, "* ",
                                 name_of(p), "`")
                        : concat("write `threadgroup ", p.type, "* ", name_of(p), "`"));
  }

  void check_space(const Parameter& p) {
    const bool shared = p.space == "threadgroup";
    if (p.space.empty()) {
      const std::string_view pointer = p.is_array ? "*" : syntax_.at(p.pointer);
      if (dependent_.count(p.type) == 0)
        findings_.add("missing-address-space", token(p.pointer),
                      concat("parameter ", name_of(p), " points to memory without an address space"),
                      concat("write `device ", p.type, pointer, "`, `constant ", p.type, pointer, "` or `threadgroup ",
                             p.type, pointer, "`"));
    } else if (p.space == "thread") {
      findings_.add("kernel-space", place_of(p), "a host has nothing in the address space thread to give to a kernel",
                    "write device, constant or threadgroup");
    } else if (p.kind != nullptr && shared != (p.kind->name == "threadgroup")) {
      findings_.add("kernel-space", p.kind->at,
                    concat("[[", p.kind->name, "]] on a pointer or reference to ", p.space, " memory"),
                    shared ? "write [[threadgroup(n)]]" : "write [[buffer(n)]]");
    }
  }

  void check_position(const Parameter& p) {
    const std::string_view name = p.kind->name;
    const bool may_be_vector = with_axes.count(name) != 0 || also_vectors.count(name) != 0;
    const char* fix = may_be_vector ? "write uint, uint2 or uint3, or the same of ushort" : "write uint or ushort";
    if (p.pointer != nowhere) {
      findings_.add("position-type", place_of(p), concat("[[", name, "]] is a value, not a pointer or reference"), fix);
      return;
    }
    if (position_scalars.count(p.type) != 0) return;
    const std::optional<unsigned> size = vector_size(p.type);
    if (size && *size >= 2 && *size <= 3 && may_be_vector) return;
    if (!size && !is_number_type(p.type) && !is_plain_number(p.type)) return;  // an alias, a template's parameter
    findings_.add("position-type", place_of(p), concat("[[", name, "]] cannot be ", p.type), fix);
  }

  /// Components of a vector of uint or ushort.
  static std::optional<unsigned> vector_size(const std::string& type) {
    for (const char* base : {"uint", "ushort"}) {
      const std::string stem = base;
      for (unsigned n = 2; n <= 4; n++)
        if (type == concat(stem, n) || type == concat("vec<", stem, ",", n, ">") ||
            type == concat("vec<", stem, ", ", n, ">"))
          return n;
    }
    return std::nullopt;
  }

  static bool is_plain_number(std::string_view type) {
    static const std::set<std::string_view> types = {"signed", "signed int", "unsigned long", "unsigned char",
                                                     "long long"};
    return types.count(type) != 0;
  }

  void check_indices(const std::vector<Parameter>& parameters) {
    std::map<std::pair<std::string, uint64_t>, const Parameter*> used;
    for (const Parameter& p : parameters) {
      if (p.kind == nullptr || is_position_attribute(p.kind->name)) continue;
      const auto index = value_of(*p.kind);
      if (!index) continue;
      if (*index > max_index)
        findings_.add("index-range", p.kind->at, concat(p.kind->name, " ", *index, " does not exist"),
                      concat("use 0 to ", max_index, "; put further values into one structure"));
      const auto [other, is_new] = used.emplace(std::make_pair(p.kind->name, *index), &p);
      if (!is_new)
        findings_.add("index-duplicate", p.kind->at,
                      concat(p.kind->name, " ", *index, " is parameter ", name_of(*other->second), " already"),
                      "give each parameter an index of its own");
    }
  }

  void check_sizes(const std::vector<Parameter>& parameters) {
    const Parameter* first = nullptr;
    unsigned first_size = 0;
    for (const Parameter& p : parameters) {
      if (p.kind == nullptr || with_axes.count(p.kind->name) == 0) continue;
      const unsigned size = position_scalars.count(p.type) != 0 ? 1 : vector_size(p.type).value_or(0);
      if (size == 0 || size > 3) continue;
      if (first == nullptr) first = &p, first_size = size;
      if (size != first_size)
        findings_.add("position-sizes", place_of(p),
                      concat(name_of(p), " is ", p.type, " and ", name_of(*first), " is ", first->type,
                             "; positions with axes are all scalars or all vectors of one size"),
                      "give them one size, for instance uint3, and use what is needed of it");
    }
  }

  /// "kernel function cannot have input declarations with 'thread_execution_width' and 'threads_per_simdgroup'
  /// attributes"
  void check_widths(const std::vector<Parameter>& parameters) {
    const Parameter* first = nullptr;
    for (const Parameter& p : parameters) {
      if (p.kind == nullptr || (p.kind->name != "thread_execution_width" && p.kind->name != "threads_per_simdgroup"))
        continue;
      if (first != nullptr && first->kind->name != p.kind->name)
        findings_.add("attribute-conflict", p.kind->at,
                      concat("a kernel cannot have both [[", first->kind->name, "]] and [[", p.kind->name, "]]"),
                      "they are the same; keep [[threads_per_simdgroup]]");
      first = &p;
    }
  }

  void check_threadgroup_memory(const Declaration& kernel) {
    uint64_t bytes = 0;
    for (size_t i = kernel.body; i < kernel.end; i++) {
      if (syntax_.at(i) != "threadgroup" || !syntax_.starts_statement(i) || !syntax_.declares_variable(i)) continue;
      const uint64_t before = bytes;
      bytes += declared_bytes(i);
      if (bytes > max_threadgroup_bytes && before <= max_threadgroup_bytes)
        findings_.add("threadgroup-size", token(i),
                      concat("with this the kernel declares ", bytes,
                             " bytes of threadgroup memory; a threadgroup has ", max_threadgroup_bytes),
                      "make the arrays smaller or reuse one for several purposes");
    }
  }

  /// Bytes of the variables that a declaration of numbers makes; 0 for what it cannot tell.
  uint64_t declared_bytes(size_t i) const {
    uint64_t element = 0, total = 0, count = 1;
    for (i++; i < syntax_.code().size(); i = syntax_.behind(i)) {
      const std::string_view word = syntax_.at(i);
      if (element == 0 && is_number_type(word)) element = size_of_number(word);
      if (word == "[") count = product(count, dimension(i));
      if (word != "," && word != ";") continue;
      total += product(element, count);
      count = 1;
      if (word == ";") break;
    }
    return total;
  }

  static uint64_t product(uint64_t a, uint64_t b) {
    constexpr uint64_t most = uint64_t(1) << 31;
    return std::min(a, most) * std::min(b, most);
  }

  uint64_t dimension(size_t open) const {
    const size_t close = syntax_.partner(open);
    if (close == nowhere) return 0;
    const std::vector<Token>& tokens = syntax_.text().tokens();
    const auto index = [&](size_t i) {
      return size_t(std::lower_bound(tokens.begin(), tokens.end(), token(i).begin,
                                     [](const Token& t, uint32_t begin) { return t.begin < begin; }) - tokens.begin());
    };
    try {
      return constants_.evaluate(index(open) + 1, index(close), {}, token(open));
    } catch (const Error&) {
      return 0;
    }
  }

  const Syntax& syntax_;
  const Constants constants_;
  const std::set<std::string_view>& dependent_;
  Findings& findings_;
  bool is_template_ = false;
  size_t evaluated_ = 0;
};

void check_function_constants(const Syntax& syntax, Findings& findings) {
  const std::vector<FunctionConstant> constants = find_function_constants(syntax, true);
  std::set<std::string> classes;
  for (const Scope& scope : syntax.scopes())
    if (scope.is_class) classes.insert(scope.name);
  std::map<uint64_t, std::string> used;
  for (const FunctionConstant& constant : constants) {
    const Declaration& declaration = syntax.declarations()[constant.declaration];
    const Token& name = syntax.code()[declaration.end - 2];
    bool in_constant = false;
    for (size_t i = declaration.begin; i < declaration.end; i++) in_constant |= syntax.at(i) == "constant";
    const bool is_wrong = constant.type.find_first_of("*&") != std::string::npos || classes.count(constant.type) != 0;
    if (!in_constant || is_wrong)
      findings.add("function-constant", name,
                   in_constant ? concat(constant.type, " is no type for a function constant")
                               : concat("function constant ", constant.name, " is not in the address space constant"),
                   concat("write `constant bool ", constant.name,
                          " [[function_constant(n)]];`, or another scalar or vector"));
    const auto [other, is_new] = used.emplace(constant.index, constant.name);
    if (!is_new || constant.index > 65535)
      findings.add("function-constant-index", name,
                   is_new ? concat("function constant ", constant.index, " does not exist")
                          : concat("function constant ", constant.index, " is ", other->second, " already"),
                   "give each function constant an index of its own, at most 65535");
  }
}

/// The first thing in the text that is no compute kernel's.
const Token* first_unsupported(const Syntax& syntax) {
  for (const Declaration& d : syntax.declarations())
    if (d.kind == Declaration::function && (syntax.at(d.head) == "vertex" || syntax.at(d.head) == "fragment"))
      return &syntax.code()[d.head];
  std::set<std::string_view> own;
  for (const Scope& scope : syntax.scopes()) own.insert(scope.name);
  for (size_t i = 0; i < syntax.code().size(); i++)
    if (is_unsupported_type(syntax.at(i)) && (syntax.at(i + 1) == "<" || syntax.is_word_at(i + 1)) &&
        own.count(syntax.at(i)) == 0)
      return &syntax.code()[i];
  for (const Attribute& attribute : syntax.attributes())
    if (is_unsupported_attribute(attribute.name)) return &attribute.at;
  return nullptr;
}

}  // namespace

bool check_kernel_rules(const Syntax& syntax, Findings& findings) {
  const std::set<std::string_view> dependent = template_types(syntax);
  KernelRules rules(syntax, dependent, findings);
  for (const Declaration& declaration : syntax.declarations()) {
    if (declaration.kind != Declaration::function || declaration.body == nowhere ||
        syntax.partner(declaration.parameters) == nowhere)
      continue;
    if (makes_kernel(syntax, declaration.head, declaration.parameters)) rules.check(declaration);
  }
  check_function_constants(syntax, findings);
  const Token* const unsupported = first_unsupported(syntax);
  if (unsupported != nullptr)
    findings.add("unsupported", *unsupported,
                 concat("`", syntax.text().spelling(*unsupported),
                        "` is beyond this check and every device of upgc but Metal; types are not checked"),
                 "use a buffer, or compile the text on a Mac");
  return unsupported == nullptr;
}

}  // namespace upgc
