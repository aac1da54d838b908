#pragma once

#include "../core/stats.h"
#include "sums.h"

// Moments of parts, taken together in a fixed order.
namespace fastsnn {
namespace cuda {

using FASTSNN_ISA::Moments;

// Moments of every thread's elements; known to thread 0
__device__ __forceinline__ Moments block_merge(Moments value, Moments (&partial)[kThreads]) {
  const int own = int(threadIdx.x);
  partial[own] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (own < half) partial[own] = FASTSNN_ISA::merge(partial[own], partial[own + half]);
    __syncthreads();
  }
  return partial[0];
}

// Moments of `parts` parts, of which part(i) are those of the i-th; known to thread 0
template <class Part>
__device__ __forceinline__ Moments merge_parts(int64_t parts, Moments (&partial)[kThreads], const Part& part) {
  Moments mine{0.0, 0.0, 0.0};
  for (int64_t i = threadIdx.x; i < parts; i += kThreads) mine = FASTSNN_ISA::merge(mine, part(i));
  return block_merge(mine, partial);
}

}  // namespace cuda
}  // namespace fastsnn
