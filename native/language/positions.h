#pragma once

#include <string_view>

namespace upgc {

/// Whether a compute kernel's parameter can have this attribute, which tells it where its thread is.
bool is_position_attribute(std::string_view name);

/// Whether `[[name]]` may stand in Metal text for compute kernels.
bool is_attribute(std::string_view name);

}  // namespace upgc
