#include "reflect.h"

#include <set>

#include "../error.h"
#include "positions.h"

namespace upgc {
namespace {

// Metal's, and those of program_check.h.
constexpr uint64_t max_index = 30;

class KernelReader {
 public:
  KernelReader(const Syntax& syntax, const Constants& constants, const KernelEntry& entry)
      : syntax_(syntax), constants_(constants), entry_(entry) {}

  KernelReflection read() {
    const Declaration& definition = define();
    KernelReflection kernel{entry_.host_name, entry_.expression, {}, std::nullopt};
    const size_t close = syntax_.partner(definition.parameters);
    if (close == nowhere) syntax_.text().refuse(entry_.at, concat("kernel ", entry_.host_name, " has no closing )"));
    for (const auto& [begin, end] : syntax_.split(definition.parameters + 1, close))
      if (syntax_.spelled(begin, end) != "void") kernel.parameters.push_back(parameter(begin, end));
    number(kernel.parameters);
    const Attribute* most = syntax_.find_attribute("max_total_threads_per_threadgroup", definition.begin,
                                                   definition.parameters);
    if (most != nullptr) kernel.max_total_threads = constants_.evaluate(most->begin, most->end, substitutes_, most->at);
    return kernel;
  }

 private:
  /// The kernel's definition, with `substitutes_` set to the arguments of its template.
  const Declaration& define() {
    if (entry_.definition == nowhere)
      syntax_.text().refuse(entry_.at, concat("kernel ", entry_.host_name, " is an instantiation of ",
                                              entry_.expression, ", which the text does not define as a kernel"));
    const Declaration& definition = syntax_.declarations()[entry_.definition];
    if (syntax_.at(definition.begin) != "template") return definition;
    size_t i = 0;
    for (const auto& [begin, end] : syntax_.split(definition.begin + 2, syntax_.behind_angles(definition.begin + 1) - 1)) {
      size_t assign = begin;
      while (assign < end && syntax_.at(assign) != "=") assign = syntax_.behind(assign);
      if (assign == begin) continue;
      const std::string name(syntax_.at(assign - 1));
      if (i < entry_.template_arguments.size()) substitutes_[name] = entry_.template_arguments[i];
      else if (assign < end) substitutes_[name] = substituted(assign + 1, end);
      i++;
    }
    return definition;
  }

  /// The text of [begin, end) for this instantiation of the template.
  std::string substituted(size_t begin, size_t end) const {
    std::string result;
    for (size_t i = begin; i < end; i++) {
      const auto found = substitutes_.find(std::string(syntax_.at(i)));
      if (i > begin && syntax_.code()[i - 1].end != syntax_.code()[i].begin) result += ' ';
      if (found != substitutes_.end()) result += found->second;
      else result += syntax_.at(i);
    }
    return result;
  }

  KernelParameter parameter(size_t begin, size_t end) const {
    size_t name = nowhere, pointer = nowhere;
    bool is_array = false;  // which as a parameter is a pointer
    for (size_t i = begin; i < end; i++) {
      if ((syntax_.at(i) == "*" || syntax_.at(i) == "&") && pointer == nowhere) pointer = i;
      if (syntax_.at(i) == "[" && name != nowhere) {
        is_array = true;
        break;
      }
      if (syntax_.at(i) == "<") {
        i = syntax_.behind(i) - 1;
        continue;
      }
      if (syntax_.is_word_at(i)) name = i;
    }
    const Token& at = name == nowhere ? entry_.at : syntax_.code()[name];
    if (name == nowhere || name == begin)
      syntax_.text().refuse(at, concat("a parameter of kernel ", entry_.host_name, " has no name"));
    KernelParameter result{std::string(syntax_.at(name)), "", 0, "", "", false, at};
    read_type(begin, pointer != nowhere ? pointer : name, pointer != nowhere || is_array, result);
    read_attributes(begin, end, pointer != nowhere || is_array, result);
    return result;
  }

  /// The type in [begin, end), which what is behind `end` may make a pointer.
  void read_type(size_t begin, size_t end, bool is_pointer, KernelParameter& parameter) const {
    bool is_const = false;
    std::string type;
    for (size_t i = begin; i < end;) {
      const std::string_view word = syntax_.at(i);
      const size_t next = syntax_.behind(i);
      if (is_address_space(word)) parameter.address_space = word;
      else if (word == "const") is_const = true;
      else if (word != "volatile" && word != "(" && word != "__restrict") {
        const bool spaced = !type.empty() && syntax_.is_word_at(i) && is_word(type.back());
        type.append(spaced ? " " : "").append(substituted(i, next));
      }
      i = word == "(" ? i + 1 : next;
    }
    parameter.type = type;
    if (is_pointer) parameter.written = !is_const && parameter.address_space != "constant";
  }

  void read_attributes(size_t begin, size_t end, bool is_pointer, KernelParameter& parameter) const {
    const auto refuse = [&](const auto&... message) {
      syntax_.text().refuse(parameter.at, concat("kernel ", entry_.host_name, ", parameter ", parameter.name, ": ",
                                                 message...));
    };
    const auto [first, last] = syntax_.attributes_in(begin, end);
    for (auto found = first; found != last; ++found) {
      const Attribute& attribute = *found;
      if (attribute.name == "buffer" || attribute.name == "threadgroup") {
        parameter.kind = attribute.name;
        parameter.index = constants_.evaluate(attribute.begin, attribute.end, substitutes_, attribute.at);
        if (parameter.index > max_index) refuse(attribute.name, " ", parameter.index, " is above ", max_index);
      } else if (is_position_attribute(attribute.name)) {
        parameter.kind = attribute.name;
      }
    }
    const bool is_memory = parameter.kind.empty() || parameter.kind == "buffer" || parameter.kind == "threadgroup";
    if (!is_memory) return;
    if (parameter.type.rfind("texture", 0) == 0 || parameter.type.rfind("depth", 0) == 0 || parameter.type == "sampler")
      refuse("textures and samplers are not supported; use a buffer");
    if (!is_pointer)
      refuse(parameter.kind.empty() ? "a value needs an attribute like [[thread_position_in_grid]]; what a host gives "
                                      "is a `constant T&` or `device T*`"
                                    : "a buffer is a pointer or reference");
    if (parameter.address_space.empty() || parameter.address_space == "thread")
      refuse("a pointer or reference needs device, constant or threadgroup");
    const bool shared = parameter.address_space == "threadgroup";
    if (!parameter.kind.empty() && shared != (parameter.kind == "threadgroup"))
      refuse("[[", parameter.kind, "]] does not fit the address space ", parameter.address_space);
    if (parameter.kind.empty()) {
      parameter.kind = shared ? "threadgroup" : "buffer";
      parameter.index = unnumbered;
    }
  }

  /// Gives parameters without an index the lowest free ones, in their order, as Metal does.
  void number(std::vector<KernelParameter>& parameters) const {
    for (const char* kind : {"buffer", "threadgroup"}) {
      std::set<uint64_t> used;
      for (const KernelParameter& parameter : parameters)
        if (parameter.kind == kind && parameter.index != unnumbered && !used.insert(parameter.index).second)
          syntax_.text().refuse(parameter.at, concat("kernel ", entry_.host_name, ", parameter ", parameter.name, ": ",
                                                     kind, " ", parameter.index, " is used twice"));
      uint64_t next = 0;
      for (KernelParameter& parameter : parameters) {
        if (parameter.kind != kind || parameter.index != unnumbered) continue;
        while (used.count(next) != 0) next++;
        parameter.index = next++;
        if (parameter.index > max_index)
          syntax_.text().refuse(parameter.at, concat("kernel ", entry_.host_name, " has more than ", max_index + 1, " ",
                                                     kind, "s"));
      }
    }
  }

  static constexpr uint64_t unnumbered = ~uint64_t(0);

  const Syntax& syntax_;
  const Constants& constants_;
  const KernelEntry& entry_;
  std::map<std::string, std::string> substitutes_;
};

}  // namespace

Reflection reflect(const Syntax& syntax) {
  const Constants constants(syntax);
  Reflection reflection{{}, find_function_constants(syntax), false};
  for (const KernelEntry& entry : find_kernels(syntax))
    reflection.kernels.push_back(KernelReader(syntax, constants, entry).read());
  for (const Token& token : syntax.code())
    if (token.kind == TokenKind::word && syntax.text().spelling(token).rfind("atomic", 0) == 0)
      reflection.uses_atomics = true;
  return reflection;
}

}  // namespace upgc
