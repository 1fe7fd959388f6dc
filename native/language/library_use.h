#pragma once

#include <string>

#include "tokens.h"

namespace upgc {

/// Whether `word` selects 2 to 4 components of a vector, out of xyzw or rgba.
bool is_swizzle(std::string_view word);

/// Macros that go before `#include <msl.h>`, a line each: which parts of the library the text needs, and its swizzles as
/// `#define UPGC_SWIZZLES(M) M(xy) M(wzyx)`. All parts and all 1360 swizzles take longer to compile than most kernels.
std::string library_use(const MetalText& text);

}  // namespace upgc
