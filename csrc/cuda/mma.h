#pragma once

#include "launch.h"

// One product of matrices on tensor cores, by a warp: c += a b, of 16 x 16 and 16 x 8 elements of 16 bits, c in float.
// Lane l, with g = l / 4 and p = 2 * (l % 4), holds pairs of neighbours along the sum:
//   a: rows g and g + 8 at places p, p + 1, then both rows at places p + 8, p + 9
//   b: column g at places p, p + 1, then at places p + 8, p + 9
//   c: row g at columns p and p + 1, then row g + 8
#ifndef FASTSNN_MMA
#define FASTSNN_MMA(type, c, a, b)                                                    \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                 \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#endif

namespace fastsnn {
namespace cuda {

// Whether there are such cores for T: from compute capability 8.0 on
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <class T>
constexpr bool kTensorCores = false;
#else
template <class T>
constexpr bool kTensorCores = sizeof(T) == 2;
#endif

// The bits of 1
template <class T>
constexpr uint32_t kOne = 0x3f80;
template <>
inline constexpr uint32_t kOne<__half> = 0x3c00;

template <class T>
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, __half>) {
    FASTSNN_MMA("f16", c, a, b);
  } else {
    FASTSNN_MMA("bf16", c, a, b);
  }
}

}  // namespace cuda
}  // namespace fastsnn
