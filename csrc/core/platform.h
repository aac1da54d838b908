#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define FASTSNN_HD __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define FASTSNN_HD __forceinline
#else
#define FASTSNN_HD inline __attribute__((always_inline))
#endif

// One copy of the rules per instruction set, so that the linker never merges an AVX-512 body
// into the baseline.
#ifndef FASTSNN_ISA
#define FASTSNN_ISA generic
#endif

namespace fastsnn {
namespace FASTSNN_ISA {

template <class To, class From>
FASTSNN_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs equal sizes");
  To to;
  std::memcpy(static_cast<void*>(&to), static_cast<const void*>(&from), sizeof to);
  return to;
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
