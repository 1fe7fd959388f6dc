#pragma once

#include "syntax.h"

namespace upgc {

/// Why this keyword of C++ is refused and what to do; nullptr when it is not.
const char* why_not_metal(std::string_view word);

/// Refuses what is not Metal and could reach beyond a kernel: UPGC_COMPILE with the place and what to do. The text is
/// compiled to native code, so this is what keeps an ordinary mistake or a crude attack out of the process. It is no
/// sandbox: a kernel that writes out of bounds is native code that writes out of bounds.
///
///   assembly · names of the compiler (`__...`, `_X...`) and of the runtime (`upgc...`) · attributes that are not
///   Metal's · extern, exceptions, the heap, run-time types · directives other than #include <metal_...> and #pragma
///
/// It reads tokens after preprocessing, so no macro can hide one. A function that is declared and not defined does not
/// link, see translation_unit.cc; global objects that run code when they are made do not compile, see kernel_cache.cc.
void admit(const MetalText& text, const Syntax& syntax);

/// The reserved names that the text itself gives to types, as public Metal code does. They are admitted because `lower`
/// replaces them: off this text's lines they mean nothing.
std::set<std::string_view> own_reserved_names(const Syntax& syntax);

}  // namespace upgc
