#include "translation_unit.h"

#include "../error.h"
#include "../kernel_calls.h"
#include "../language/admit.h"
#include "../language/library_use.h"
#include "../language/lower.h"
#include "../language/preprocess.h"

namespace upgc {

std::string translation_unit(const ProgramSpec& spec) {
  const MetalText text = preprocess(spec);
  const Syntax syntax(text);
  admit(text, syntax);
  // Hidden, a function that the text declares and does not define fails to link. Otherwise it would be looked for
  // among the functions of this process.
  std::string unit = concat(library_use(text), "#include <msl.h>\n#pragma GCC visibility push(hidden)\n#line 1 ",
                            quoted(spec.source_name), "\n", lower(syntax, spec.function_constants),
                            "\n#pragma GCC visibility pop\n");
  const std::vector<Reference> references = refer_to_kernels(spec, text, syntax);
  for (size_t k = 0; k < references.size(); k++)
    if (!references[k].preparation.empty())
      unit += concat("#line 1 ", quoted("plan, kernel " + spec.kernels[k].name), "\n", references[k].preparation, "\n");
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
