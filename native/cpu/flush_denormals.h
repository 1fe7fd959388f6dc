// Kernels run with subnormal floats flushed to zero, as Metal allows and Apple GPUs do. On a CPU each subnormal result
// would otherwise cost some hundred cycles, and the tail of a softmax is full of them.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace upgc {

/// Flushes subnormal inputs and results of the calling thread to zero while it lives.
class FlushDenormals {
 public:
  FlushDenormals() : saved_(control()) { set_control(saved_ | flush_bits); }
  ~FlushDenormals() { set_control(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__x86_64__)
  using Control = unsigned;
  static constexpr Control flush_bits = 0x8040;  // flush to zero, denormals are zero
  static Control control() { return _mm_getcsr(); }
  static void set_control(Control value) { _mm_setcsr(value); }
#elif defined(__aarch64__)
  using Control = unsigned long;
  static constexpr Control flush_bits = 1ul << 24;  // FZ
  static Control control() {
    Control value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void set_control(Control value) { asm volatile("msr fpcr, %0" : : "r"(value)); }
#endif

  const Control saved_;
};

}  // namespace upgc
