#pragma once

#include <map>
#include <string>

#include "kernels.h"

namespace upgc {

/// What the host gives for function constants, by index.
using ConstantValues = std::map<uint64_t, double>;

/// The text as C++ can read it, with every line where it was, and columns too but for what the last rule says:
///   - `[[...]]` become spaces, but for `[[kernel]]`, which becomes `kernel`; explicit instantiations of kernels too;
///   - `threadgroup` before a variable, as opposed to a pointer or reference, becomes `upgc_shared`;
///   - function constants get their values;
///   - definitions that differ from an earlier one only in address spaces become spaces when they are the same text;
///   - reserved names that the text gives to types become other names, as long;
///   - `#pragma unroll(full)` and its kin lose what clang does not know;
///   - floating-point literals without suffix get the f that Metal reads into them: in place of a 0 or a space nearby
///     where there is one.
/// UPGC_COMPILE for what cannot be said in C++.
///
/// For the strict check (check.h) address spaces are kept. Then variables in threadgroup memory become references,
/// function constants become 1, `constant` before a variable becomes what native/msl/strict_language.h defines, and
/// only the address space of a method's object is dropped. Columns stay but within a declaration that became longer.
enum class AddressSpaces { erased, kept };
///
/// For a compiler without properties, swizzles become functions: `v.xyz` is `v.upgc_get_xyz()`, and `v.upgc_put_xyz()` where
/// it is assigned to. Columns behind them are not kept.
enum class Swizzles { properties, functions };
std::string lower(const Syntax& syntax, const ConstantValues& values, AddressSpaces spaces = AddressSpaces::erased,
                  Swizzles swizzles = Swizzles::properties);

/// An expression of the text, with the names that `lower` replaces replaced.
std::string lower_names(const Syntax& syntax, const std::string& expression);

}  // namespace upgc
