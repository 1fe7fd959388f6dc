// The part of a module that is compiled with UPGC_SANITIZE and calls the runtime before each access to memory. clang's
// instrumentation for its address sanitizer makes the calls, native/cpu/sanitized_assembly.h adds the last
// argument, and this file, which is not instrumented itself, takes the place of that sanitizer's library.
#include "abi.h"

#define UPGC_HIDDEN __attribute__((visibility("hidden")))

namespace upgc {

UPGC_HIDDEN const volatile void* volatile atomic_address;
UPGC_HIDDEN unsigned serial_thread;
static abi::OnAccess on_access;
extern "C" UPGC_HIDDEN const abi::SharedVariable upgc_shared_variables[];

}  // namespace upgc

using Size = decltype(sizeof(0));

extern "C" {

#define UPGC_ACCESSES(bytes)                                                                            \
  UPGC_HIDDEN void __asan_load##bytes(const void* address, Size, Size, unsigned site) {                 \
    upgc::on_access(address, bytes, false, site);                                                       \
  }                                                                                                     \
  UPGC_HIDDEN void __asan_store##bytes(const void* address, Size, Size, unsigned site) {                \
    upgc::on_access(address, bytes, true, site);                                                        \
  }
UPGC_ACCESSES(1)
UPGC_ACCESSES(2)
UPGC_ACCESSES(4)
UPGC_ACCESSES(8)
UPGC_ACCESSES(16)
#undef UPGC_ACCESSES

UPGC_HIDDEN void __asan_loadN(const void* address, Size bytes, Size, unsigned site) {
  upgc::on_access(address, bytes, false, site);
}
UPGC_HIDDEN void __asan_storeN(const void* address, Size bytes, Size, unsigned site) {
  upgc::on_access(address, bytes, true, site);
}
UPGC_HIDDEN void* __asan_memcpy(void* into, const void* from, Size bytes, unsigned site) {
  upgc::on_access(from, bytes, false, site);
  upgc::on_access(into, bytes, true, site);
  return __builtin_memcpy(into, from, bytes);
}
UPGC_HIDDEN void* __asan_memmove(void* into, const void* from, Size bytes, unsigned site) {
  upgc::on_access(from, bytes, false, site);
  upgc::on_access(into, bytes, true, site);
  return __builtin_memmove(into, from, bytes);
}
UPGC_HIDDEN void* __asan_memset(void* into, int value, Size bytes, unsigned site) {
  upgc::on_access(into, bytes, true, site);
  return __builtin_memset(into, value, bytes);
}
UPGC_HIDDEN void __asan_handle_no_return() {}
/// Instrumented functions read it on some systems, and use it only where they do not call the functions above.
UPGC_HIDDEN Size __asan_shadow_memory_dynamic_address = 0;
}

extern "C" __attribute__((visibility("default"))) const upgc::abi::Sanitized upgc_sanitized = {
    &upgc::on_access, &upgc::atomic_address, &upgc::serial_thread, upgc::upgc_shared_variables};
