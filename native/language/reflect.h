#pragma once

#include "kernels.h"

namespace upgc {

/// See InspectedParameter in src/runtime/native.ts.
struct KernelParameter {
  std::string name;
  /// `buffer`, `threadgroup` or the position attribute.
  std::string kind;
  uint64_t index;
  /// Of what a pointer or reference points to, else of the value; without address space and const.
  std::string type;
  std::string address_space;
  bool written;
  Token at;
};

/// See InspectedKernel there.
struct KernelReflection {
  std::string name;
  std::string function;
  std::vector<KernelParameter> parameters;
  std::optional<uint64_t> max_total_threads;
};

struct Reflection {
  std::vector<KernelReflection> kernels;
  std::vector<FunctionConstant> function_constants;
  bool uses_atomics;
};

/// What a host must know to call the kernels of the text. UPGC_COMPILE for a parameter that no host could fill.
Reflection reflect(const Syntax& syntax);

}  // namespace upgc
