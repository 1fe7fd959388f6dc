#include "findings.h"

#include <cstdlib>
#include <cstring>

namespace upgc {

const std::vector<Rule>& check_rules() {
  constexpr bool error = true, warning = false;
  // MSL is Apple's Metal Shading Language Specification; in quotes are words of Apple's compiler.
  static const std::vector<Rule> rules = {
      // Kernels and their parameters: MSL, "Functions, Variables, and Qualifiers".
      {"kernel-returns", error, "a kernel returns void"},
      {"kernel-called", error, "no function calls a kernel"},
      {"attribute-unknown", error, "an attribute is one of Metal's"},
      {"attribute-missing", error, "a kernel's parameter by value has an attribute that says what it is"},
      {"attribute-conflict", error, "attributes of a kernel's parameters do not contradict one another"},
      {"buffer-by-value", error, "what is in a buffer or in threadgroup memory is a pointer or reference"},
      {"kernel-space", error, "a kernel's pointer is device, constant or threadgroup, as its attribute says"},
      {"index-constant", error, "an index is a constant of 0 or more"},
      {"index-range", error, "indices of buffers and of threadgroup memory are at most 30"},
      {"index-duplicate", error, "no two parameters of a kernel have one index"},
      {"position-type", error, "a thread position is a uint or ushort, or a vector of them where it has axes"},
      // "expecting input declarations with either all scalar types or all vector types with the same number of
      // elements"
      {"position-sizes", error, "positions that have axes are all scalars or all vectors of one size"},
      {"max-threads", error, "a threadgroup has 1 to 1024 threads"},
      {"function-constant", error,
       "a function constant is `constant T name [[function_constant(n)]];`, T a scalar or vector"},
      {"function-constant-index", error, "no two function constants have one index; it is at most 65535"},
      // Address spaces: MSL, "Address Spaces".
      // "pointer type must have explicit address space qualifier"; Metal 4.1 was the first with another default.
      {"missing-address-space", error, "a pointer or reference names the address space of what it points to"},
      {"address-space", error, "a pointer or reference into one address space does not become one into another"},
      {"read-only", error, "what is const or constant is not written"},
      {"threadgroup-variable", error, "variables in threadgroup memory are declared in kernels"},
      // Apple's compiler takes one, public kernels show; its specification does not say what happens.
      {"threadgroup-initialiser", warning,
       "variables in threadgroup memory have no initialiser, whose writes would race"},
      // The limit of every GPU family in Apple's Metal Feature Set Tables.
      {"threadgroup-size", error, "the threadgroup memory that a kernel declares is at most 32 KB"},
      // "program scope variable must reside in constant address space"
      {"program-variable", error, "variables outside of functions are constant"},
      {"static-variable", error, "a function has no static variable that can change"},
      // The language: MSL, "Restrictions", "Scalar Data Types" and "Atomic Functions".
      {"keyword", error,
       "Metal has no goto, virtual, register, exceptions, heap, run-time types, assembly or thread_local"},
      {"reserved-name", error, "a keyword of Metal is no name"},
      {"recursion", error, "no function calls itself, not by way of others either"},
      // "lambda expressions are not supported in Metal" up to macOS 14; newer compilers take them.
      {"lambda", warning, "Metal compilers up to that of macOS 14 have no lambda expressions"},
      {"wide-type", error, "Metal has no double, long double or long long"},
      {"std-name", error, "Metal has no C++ standard library, so no names of std"},
      {"missing-include", error, "a text that uses Metal's library includes <metal_stdlib>"},
      {"missing-using", error, "names of Metal's library need metal:: or `using namespace metal;`"},
      {"memory-order", error, "atomic operations other than fences take memory_order_relaxed"},
      {"atomic-type", error, "Metal has atomics of int, uint, bool, float and ulong"},
      {"atomic-call", error, "atomic functions are those whose names end in _explicit"},
      // MTLCompileOptions.fastMathEnabled is true by default: to the compiler there is no NaN and no infinity.
      {"fast-math", warning, "under fast math, Metal's default, isnan, isinf and isfinite may always give one answer"},
      // What compiling as C++ with address spaces finds.
      {"ambiguous-call", error, "operands of min, max, clamp and their like have one type"},
      {"unknown-name", error, "names are declared before they are used"},
      {"types", error, "the text compiles as C++"},
      {"incomplete", error, "brackets, comments, literals and directives are complete"},
      // What Apple's compiler takes and upgc does not.
      {"refused", warning, "names of compilers, pragmas and files that upgc does not know run on no device but Metal"},
      {"unsupported", warning, "textures and samplers are checked by Apple's compiler only"},
  };
  return rules;
}

const Rule& find_rule(const char* id) {
  for (const Rule& rule : check_rules())
    if (std::strcmp(rule.id, id) == 0) return rule;
  std::abort();
}

void Findings::add(const char* rule, const Token& at, const std::string& message, const std::string& fix) {
  if (full()) return;
  lines_.insert(at.line);
  list_.push_back({&find_rule(rule), message, fix, at.line, at.column, at.end - at.begin});
}

}  // namespace upgc
