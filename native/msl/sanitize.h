// Only with UPGC_SANITIZE: tells the runtime which accesses are atomic. It must come before the headers that make them.
#pragma once

namespace upgc {

/// See native/msl/sanitizer.cc.
extern __attribute__((visibility("hidden"))) const volatile void* volatile atomic_address;
extern __attribute__((visibility("hidden"))) unsigned serial_thread;

}  // namespace upgc

// A macro's own name is not expanded again: each of these ends in the built-in function itself.
#define UPGC_ATOMIC(address) upgc::atomic_address = (const volatile void*)(address)
#define __atomic_load_n(p, ...) (UPGC_ATOMIC(p), __atomic_load_n(p, __VA_ARGS__))
#define __atomic_load(p, ...) (UPGC_ATOMIC(p), __atomic_load(p, __VA_ARGS__))
#define __atomic_store_n(p, ...) (UPGC_ATOMIC(p), __atomic_store_n(p, __VA_ARGS__))
#define __atomic_store(p, ...) (UPGC_ATOMIC(p), __atomic_store(p, __VA_ARGS__))
#define __atomic_exchange_n(p, ...) (UPGC_ATOMIC(p), __atomic_exchange_n(p, __VA_ARGS__))
#define __atomic_exchange(p, ...) (UPGC_ATOMIC(p), __atomic_exchange(p, __VA_ARGS__))
#define __atomic_compare_exchange_n(p, ...) (UPGC_ATOMIC(p), __atomic_compare_exchange_n(p, __VA_ARGS__))
#define __atomic_compare_exchange(p, ...) (UPGC_ATOMIC(p), __atomic_compare_exchange(p, __VA_ARGS__))
#define __atomic_fetch_add(p, ...) (UPGC_ATOMIC(p), __atomic_fetch_add(p, __VA_ARGS__))
#define __atomic_fetch_sub(p, ...) (UPGC_ATOMIC(p), __atomic_fetch_sub(p, __VA_ARGS__))
#define __atomic_fetch_and(p, ...) (UPGC_ATOMIC(p), __atomic_fetch_and(p, __VA_ARGS__))
#define __atomic_fetch_or(p, ...) (UPGC_ATOMIC(p), __atomic_fetch_or(p, __VA_ARGS__))
#define __atomic_fetch_xor(p, ...) (UPGC_ATOMIC(p), __atomic_fetch_xor(p, __VA_ARGS__))
#define __atomic_fetch_min(p, ...) (UPGC_ATOMIC(p), __atomic_fetch_min(p, __VA_ARGS__))
#define __atomic_fetch_max(p, ...) (UPGC_ATOMIC(p), __atomic_fetch_max(p, __VA_ARGS__))
