#include "kernel_calls.h"

#include "error.h"
#include "language/lower.h"

namespace upgc {
namespace {

/// Whether the body of a kernel has this word.
bool mentions(const Syntax& syntax, const KernelEntry& entry, std::string_view word) {
  if (entry.definition == nowhere) return false;
  const Declaration& declaration = syntax.declarations()[entry.definition];
  for (size_t i = declaration.begin; i < declaration.end; i++)
    if (syntax.at(i) == word) return true;
  return false;
}

Reference refer_to(const Syntax& syntax, const KernelEntry& entry, size_t number) {
  std::string expression = "&" + lower_names(syntax, entry.expression);
  if (!entry.type.empty()) expression = concat("static_cast<", lower_names(syntax, entry.type), ">(", expression, ")");
  const bool waits = mentions(syntax, entry, "wait_for_inputs");
  if (entry.scope == 0) return {expression, "", waits};
  const std::string name = concat("upgc_kernel_", number);
  Reference reference{name, concat("constexpr auto ", name, " = ", expression, ";"), waits};
  for (size_t scope = entry.scope; scope != 0; scope = syntax.scopes()[scope].parent) {
    const std::string& called = syntax.scopes()[scope].name;
    reference.preparation = concat("namespace ", called, " { ", reference.preparation, " }");
    if (!called.empty()) reference.expression = concat(called, "::", reference.expression);
  }
  return reference;
}

/// The kernel with this host name; as a host name need not be an identifier, also the one with this function name. A
/// text without kernels is left to the compiler, which says what it finds wrong.
KernelEntry find_kernel(const MetalText& text, const std::vector<KernelEntry>& kernels, const std::string& name) {
  for (const KernelEntry& kernel : kernels)
    if (kernel.host_name == name) return kernel;
  std::string known;
  for (const KernelEntry& kernel : kernels) {
    if (kernel.expression == name) return kernel;
    known += concat(known.empty() ? "" : ", ", kernel.host_name);
  }
  if (!kernels.empty())
    throw Error(code::compile, concat(text.name(), " has no kernel ", name, "; it has: ", known));
  return {name, name, 0, nowhere, {}, {}};
}

}  // namespace

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

std::vector<Reference> refer_to_kernels(const ProgramSpec& spec, const MetalText& text, const Syntax& syntax) {
  const std::vector<KernelEntry> kernels = find_kernels(syntax);
  std::vector<Reference> references;
  for (const Kernel& kernel : spec.kernels)
    references.push_back(refer_to(syntax, find_kernel(text, kernels, kernel.name), references.size()));
  return references;
}

}  // namespace upgc
