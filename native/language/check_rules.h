#pragma once

#include "../program_spec.h"
#include "findings.h"
#include "syntax.h"

namespace upgc {

// The parts of check.h.

/// Kernels, their parameters and function constants. False when the text has what only Apple's compiler can check.
bool check_kernel_rules(const Syntax& syntax, Findings& findings);

/// What any function, variable or expression may not be. `library` has at least the names of its functions.
void check_language_rules(const Syntax& syntax, const std::set<std::string>& library, Findings& findings);

/// What clang says of the text as C++ with address spaces. UPGC_NO_CLANG and UPGC_IO when it cannot be run.
void check_types(const ProgramSpec& spec, const Syntax& syntax, Findings& findings);

/// Whether this is an attribute of Metal that kernels for buffers have no use for.
bool is_unsupported_attribute(std::string_view name);
/// Whether the word is a scalar or vector type of Metal.
bool is_number_type(std::string_view word);
/// Components of a number type: 1 to 4.
unsigned component_count(std::string_view type);
/// Bytes of a number type in memory.
uint64_t size_of_number(std::string_view type);
/// The pointer or reference in [begin, end), a type with or without a name, that names no address space; `nowhere`
/// when each does, and when it points to what only a template argument tells.
size_t pointer_without_space(const Syntax& syntax, const std::set<std::string_view>& dependent, size_t begin,
                             size_t end);
/// The names of type parameters of templates.
std::set<std::string_view> template_types(const Syntax& syntax);

}  // namespace upgc
