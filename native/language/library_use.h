#pragma once

#include <string>

#include "tokens.h"

namespace upgc {

/// Macros that go before `#include <msl.h>`, a line each: which parts of the library the text needs, and its swizzles as
/// `#define UPGC_SWIZZLES(M) M(xy) M(wzyx)`. All parts and all 1360 swizzles take longer to compile than most kernels.
std::string library_use(const MetalText& text);

}  // namespace upgc
