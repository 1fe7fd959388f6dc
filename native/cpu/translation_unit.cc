#include "translation_unit.h"

#include "../error.h"
#include "../language/admit.h"
#include "../language/library_use.h"
#include "../language/lower.h"
#include "../language/preprocess.h"

namespace upgc {
namespace {

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

/// How the table of kernels refers to a kernel, and what must stand before the table for that: names in a namespace,
/// which may be one without a name, are looked up where they were written.
struct Reference {
  std::string expression;
  std::string preparation;
};

Reference refer_to(const Syntax& syntax, const KernelEntry& entry, size_t number) {
  std::string expression = "&" + lower_names(syntax, entry.expression);
  if (!entry.type.empty()) expression = concat("static_cast<", lower_names(syntax, entry.type), ">(", expression, ")");
  if (entry.scope == 0) return {expression, ""};
  const std::string name = concat("upgc_kernel_", number);
  Reference reference{name, concat("constexpr auto ", name, " = ", expression, ";")};
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

std::string translation_unit(const ProgramSpec& spec) {
  const MetalText text = preprocess(spec);
  const Syntax syntax(text);
  admit(text, syntax);
  // Hidden, a function that the text declares and does not define fails to link. Otherwise it would be looked for
  // among the functions of this process.
  std::string unit = concat(library_use(text), "#include <msl.h>\n#pragma GCC visibility push(hidden)\n#line 1 ",
                            quoted(spec.source_name), "\n", lower(syntax, spec.function_constants),
                            "\n#pragma GCC visibility pop\n");
  const std::vector<KernelEntry> kernels = find_kernels(syntax);
  std::vector<Reference> references;
  for (const Kernel& kernel : spec.kernels) {
    references.push_back(refer_to(syntax, find_kernel(text, kernels, kernel.name), references.size()));
    if (!references.back().preparation.empty())
      unit += concat("#line 1 ", quoted("plan, kernel " + kernel.name), "\n", references.back().preparation, "\n");
  }
  // An array cannot be empty, so the table ends with an entry without a name.
  unit += "#line 1 \"kernel table\"\nstatic constexpr upgc::abi::Kernel upgc_kernels[] = {\n";
  for (size_t k = 0; k < spec.kernels.size(); k++) {
    const Kernel& kernel = spec.kernels[k];
    unit += concat("#line 1 ", quoted("plan, kernel " + kernel.name), "\n  upgc::Thunk<", references[k].expression,
                   ", upgc::Threads<", kernel.threads[0], ", ", kernel.threads[1], ", ", kernel.threads[2], ">, ",
                   kernel.buffer_count());
    for (size_t i = 0; i < kernel.arguments.size(); i++) unit += ", " + argument_source(kernel, i);
    unit += concat(">::entry(\"", kernel.name, "\"),\n");
  }
  unit += "#line 1 \"kernel table\"\n  {nullptr, 0, nullptr, nullptr}};\nUPGC_MODULE(upgc_kernels)\n";
  return unit;
}

}  // namespace upgc
