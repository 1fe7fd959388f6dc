#pragma once

#include <napi.h>

#include "pack/pack_spec.h"

namespace upgc {

/// Reads a PackSpec of src/runtime/native.ts, as `parse_program_spec` reads programs. Bytes are copied.
pack::PackSpec parse_pack_spec(Napi::Value value);

}  // namespace upgc
