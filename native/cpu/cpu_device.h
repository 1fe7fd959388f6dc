#pragma once

#include "../device.h"

namespace upgc {

/// Compiles the Metal text with clang and runs it on one core.
class CpuDevice : public Device {
 public:
  const char* name() const override { return "cpu"; }
  std::unique_ptr<Program> create(const ProgramSpec& spec) const override;
};

}  // namespace upgc
