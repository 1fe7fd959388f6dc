#include "cpu/cpu_device.h"
#include "cuda/cuda_device.h"
#include "device.h"

namespace upgc {

const std::vector<const Device*>& devices() {
  static const CpuDevice cpu;
  static const CudaDevice cuda;
  static const std::vector<const Device*> all = {&cuda, &cpu};
  return all;
}

}  // namespace upgc
