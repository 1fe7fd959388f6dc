#include "cpu/cpu_device.h"
#include "device.h"

namespace upgc {

const std::vector<const Device*>& devices() {
  static const CpuDevice cpu;
  static const std::vector<const Device*> all = {&cpu};
  return all;
}

}  // namespace upgc
