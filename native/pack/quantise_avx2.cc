// Compiled with -mavx2; nothing here may run before quantise.cc has looked at the processor.
#include "quantise_rows.h"

namespace upgc::pack {

void quantise_avx2(const float* x, const float* importance, uint64_t columns, const PackedFormat& format, Method method,
                   RowCodes& to);

void quantise_avx2(const float* x, const float* importance, uint64_t columns, const PackedFormat& format, Method method,
                   RowCodes& to) {
  Row(x, importance, columns, format, method, to).quantise();
}

}  // namespace upgc::pack
