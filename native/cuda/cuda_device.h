#pragma once

#include "../device.h"

namespace upgc {

/// Compiles the Metal text with NVRTC and runs it on an NVIDIA GPU.
class CudaDevice : public Device {
 public:
  const char* name() const override { return "cuda"; }
  bool present() const override;
  std::unique_ptr<Program> create(const ProgramSpec& spec) const override;
};

}  // namespace upgc
