#pragma once

#include <map>
#include <string>
#include <vector>

#include "syntax.h"

namespace upgc {

/// A kernel that a host can ask for: a plain function, or one instantiation of a template.
struct KernelEntry {
  /// What the host calls it.
  std::string host_name;
  /// The function as an expression in its scope: `f`, `f<float, 4>`.
  std::string expression;
  size_t scope;
  /// Index into Syntax::declarations(); `nowhere` when the text instantiates what it does not define.
  size_t definition;
  /// The arguments of the template, one for each argument written.
  std::vector<std::string> template_arguments;
  Token at;
  /// The type of the function, where the text has several kernels of this name and the instantiation tells which.
  std::string type = "";
};

/// Whether the words or attributes in [begin, end) of the code make a function a kernel.
bool makes_kernel(const Syntax& syntax, size_t begin, size_t end);

/// The kernels of a text in its order. UPGC_COMPILE when two have one name.
std::vector<KernelEntry> find_kernels(const Syntax& syntax);

/// `constant T x [[function_constant(index)]];`
struct FunctionConstant {
  std::string name;
  std::string type;
  uint64_t index;
  /// Where it is declared: Syntax::declarations().
  size_t declaration;
};

/// UPGC_COMPILE for one elsewhere than on such a declaration, or with `pass_others` none of those.
std::vector<FunctionConstant> find_function_constants(const Syntax& syntax, bool pass_others = false);

/// Values of names that are known when the text is compiled.
class Constants {
 public:
  explicit Constants(const Syntax& syntax);

  /// The value of code-like tokens [begin, end) of MetalText, where the names of `substitutes` stand for other text.
  /// UPGC_COMPILE at `at` when they are no integer constant of 0 or more that this class can work out.
  uint64_t evaluate(size_t begin, size_t end, const std::map<std::string, std::string>& substitutes,
                    const Token& at) const;

 private:
  const Syntax& syntax_;
  /// A name's expression: tokens of Syntax::code().
  std::map<std::string, std::string> expressions_;
};

}  // namespace upgc
