#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_ignore_thread_begin();
extern "C" void __tsan_ignore_thread_end();
#endif

// What AddressSanitizer and ThreadSanitizer must be told about fibres; nothing in a plain build.
// ThreadSanitizer sees every CUDA thread as a thread of its own and learns of no order but that of barriers.
#define GPULESS_UNSEEN __attribute__((no_sanitize("thread"), noinline))

namespace gpuless {

#if defined(__SANITIZE_THREAD__)
constexpr bool kWatchedForRaces = true;
using RaceFibre = void*;
inline RaceFibre race_fibre_create() { return __tsan_create_fiber(0); }
inline RaceFibre race_fibre_current() { return __tsan_get_current_fiber(); }
inline void race_fibre_name(RaceFibre fibre, const char* name) { __tsan_set_fiber_name(fibre, name); }
inline void race_fibre_destroy(RaceFibre fibre) { __tsan_destroy_fiber(fibre); }
inline void race_fibre_enter(RaceFibre fibre) { __tsan_switch_to_fiber(fibre, __tsan_switch_to_fiber_no_sync); }
inline void race_release(char& key) { __tsan_release(&key); }
inline void race_acquire(char& key) { __tsan_acquire(&key); }
// The allocator's own reads and writes are no race, and fresh memory has no past.
struct Unwatched {
  Unwatched() { __tsan_ignore_thread_begin(); }
  ~Unwatched() { __tsan_ignore_thread_end(); }
};
#else
constexpr bool kWatchedForRaces = false;
using RaceFibre = void*;
inline RaceFibre race_fibre_create() { return nullptr; }
inline RaceFibre race_fibre_current() { return nullptr; }
inline void race_fibre_name(RaceFibre, const char*) {}
inline void race_fibre_destroy(RaceFibre) {}
inline void race_fibre_enter(RaceFibre) {}
inline void race_release(char&) {}
inline void race_acquire(char&) {}
struct Unwatched {
  Unwatched() {}
};
#endif

// A stack as AddressSanitizer knows it: `frames` holds its fake frames while another stack runs.
struct KnownStack {
  void* frames;
  const void* bottom;
  size_t bytes;
};

#if defined(__SANITIZE_ADDRESS__)
inline void stack_leave(KnownStack* from, const KnownStack& to) {
  __sanitizer_start_switch_fiber(from ? &from->frames : nullptr, to.bottom, to.bytes);
}
inline void stack_enter(const KnownStack& to, KnownStack* from) {
  __sanitizer_finish_switch_fiber(to.frames, from ? &from->bottom : nullptr, from ? &from->bytes : nullptr);
}
#else
inline void stack_leave(KnownStack*, const KnownStack&) {}
inline void stack_enter(const KnownStack&, KnownStack*) {}
#endif

}  // namespace gpuless
