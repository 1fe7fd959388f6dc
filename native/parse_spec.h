#pragma once

#include <napi.h>

#include "program_spec.h"

namespace upgc {

/// Reads a ProgramSpec out of a JavaScript value. A missing or mistyped property throws upgc::Error (UPGC_BAD_PLAN)
/// that names it, e.g. `spec.kernels[3].threads`; a getter that throws passes its error on as Napi::Error.
ProgramSpec parse_program_spec(Napi::Value value);

/// The arguments of `inspectKernels`, as a spec without kernels.
ProgramSpec parse_inspection(Napi::Value source, Napi::Value source_name, Napi::Value options);

/// An integer from 0 to 2^53; anything else is a UPGC_BAD_PLAN error about `what`.
uint64_t parse_integer(Napi::Value value, const char* what);

}  // namespace upgc
