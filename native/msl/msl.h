// What every kernel text sees on the CPU device: the Metal standard library as far as upgc uses it.
// `language.h` comes last because its macros (`thread`, `device`, ...) would rewrite the headers before it.
#pragma once

#include "abi.h"
#ifdef UPGC_SANITIZE
#include "sanitize.h"
#endif
#include "scalar.h"
#include "vector.h"
#include "limits.h"
#include "integer.h"
#include "elementary.h"
#include "math.h"
#include "simdgroup.h"
#include "entry.h"
#include "language.h"
