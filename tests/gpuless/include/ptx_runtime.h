#pragma once

#include "fibres.h"
#include "ptx_arithmetic.h"
#include "ptx_counts.h"

// What translated PTX calls for memory, barriers and warps. Addresses of global memory are the host's; those of
// shared memory hold the number of the array in their top byte, so that each array has bounds of its own.
namespace ptx {

constexpr int kWindowBits = 24;

struct SharedArrays {
  const uint32_t* bytes;  // per array, in the order of declaration
  int dynamic;            // which one is sized by the launch, or -1
  size_t dynamic_bytes;
};
inline SharedArrays shared_arrays;

// Lines are those of the PTX.
template <class T, int n>
T* aligned(uintptr_t address, int line) {
  if (address % (sizeof(T) * n)) {
    gpuless::fail("misaligned address %#llx for %zu bytes, PTX line %d", (unsigned long long)address, sizeof(T) * n,
                  line);
  }
  return reinterpret_cast<T*>(address);
}

template <class T, int n>
const T* global_load(uint64_t address, int line = __builtin_LINE()) {
  count_access(address, sizeof(T) * n, line, false);
  return aligned<T, n>(address, line);
}
template <class T, int n>
T* global_store(uint64_t address, int line = __builtin_LINE()) {
  count_access(address, sizeof(T) * n, line, true);
  return aligned<T, n>(address, line);
}

template <class T, int n>
T* shared_access(uint32_t address, int line = __builtin_LINE()) {
  const int array = int(address >> kWindowBits) - 1;
  const uint32_t offset = address & ((1u << kWindowBits) - 1);
  const bool dynamic = array == shared_arrays.dynamic;
  const size_t bytes = array < 0 ? 0 : dynamic ? shared_arrays.dynamic_bytes : shared_arrays.bytes[array];
  if (offset + sizeof(T) * n > bytes) {
    gpuless::fail("out of bounds: shared array %d of %zu bytes at byte %u, PTX line %d", array, bytes, offset, line);
  }
  char* base = static_cast<char*>(dynamic ? gpuless::dynamic_shared()
                                          : gpuless::shared_array(shared_arrays.bytes + array, bytes));
  aligned<T, n>(offset, line);
  return reinterpret_cast<T*>(base + offset);
}

// Lanes of a warp may store one value to one place, as Triton lets them: that is no race.
template <class T>
void shared_store(T& at, T value) {
  if (gpuless::kWatchedForRaces) {
    const gpuless::Unwatched unwatched;
    if (std::memcmp(&at, &value, sizeof value) == 0) return;
  }
  at = value;
}

template <class T>
T param(const unsigned char* params, size_t offset) {
  T value;
  std::memcpy(&value, params + offset, sizeof value);
  return value;
}

inline void barrier(int line = __builtin_LINE()) { gpuless::barrier(gpuless::Place{"PTX line", line}); }

inline void barrier_of(unsigned threads, int line = __builtin_LINE()) {
  if (threads != gpuless::volume(gpuless::block_size))
    gpuless::fail("a barrier of %u threads at PTX line %d", threads, line);
  barrier(line);
}

inline uint32_t shfl(gpuless::Shuffle mode, bool* in_range, uint32_t value, uint32_t b, uint32_t c, uint32_t mask) {
  const gpuless::Source source = gpuless::shuffle_source(mode, b, c);
  if (in_range) *in_range = source.in_range;
  return uint32_t(gpuless::warp_shuffle(mask, value, source.lane));
}

// ldmatrix of n matrices, each 8 rows of 16 bytes: lane 8i + r has the address of row r of matrix i, and each lane gets
// word lane % 4 of row lane / 4 of every matrix.
template <int n>
void load_matrices(uint32_t address, uint32_t (&words)[n], int line = __builtin_LINE()) {
  constexpr int kRows = 8, kWords = 4;
  const unsigned lane = gpuless::lane();
  uint32_t row[kWords] = {};
  if (lane < kRows * n) std::memcpy(row, shared_access<uint32_t, kWords>(address, line), sizeof row);
  for (int i = 0; i < n; i++) {
    for (unsigned w = 0; w < kWords; w++) {
      const uint64_t word = gpuless::warp_shuffle(0xffffffffu, row[w], kRows * i + lane / kWords);
      if (w == lane % kWords) words[i] = uint32_t(word);
    }
  }
}

template <class T>
T fma(T a, T b, T c) {
  count_fma();
  return fused(a, b, c);
}
template <Round r, bool ftz, class T>
T fma(T a, T b, T c) {
  const T x = flush<ftz>(a), y = flush<ftz>(b), z = flush<ftz>(c);
  if constexpr (r == rn) {
    return flush<ftz>(fma(x, y, z));
  } else {
    volatile T vx = x, vy = y, vz = z;
    return flush<ftz>(T(rounded<r>([&] { return fma(T(vx), T(vy), T(vz)); })));
  }
}

template <class T>
T div_int(T a, T b, int line = __builtin_LINE()) {
  if (b == 0) gpuless::fail("integer division by zero, PTX line %d", line);
  return std::is_signed<T>::value && b == T(-1) ? sub_int(T(0), a) : T(a / b);
}
template <class T>
T rem_int(T a, T b, int line = __builtin_LINE()) {
  return sub_int(a, mul_lo(div_int(a, b, line), b));
}

}  // namespace ptx
