#include "quantise.h"

#include "quantise_rows.h"

namespace upgc::pack {

#if defined(UPGC_AVX2)
/// quantise_avx2.cc: the same results, twice as fast.
void quantise_avx2(const float* x, const float* importance, uint64_t columns, const PackedFormat& format, Method method,
                   RowCodes& to);
#endif

void quantise(const float* x, const float* importance, uint64_t columns, const PackedFormat& format, Method method,
              RowCodes& to) {
#if defined(UPGC_AVX2)
  static const bool avx2 = __builtin_cpu_supports("avx2");
  if (avx2) return quantise_avx2(x, importance, columns, format, method, to);
#endif
  Row(x, importance, columns, format, method, to).quantise();
}

}  // namespace upgc::pack
