#pragma once

#include "launch.h"

// Sums over a block's threads, in a fixed order.
namespace fastsnn {
namespace cuda {

// Sum of every thread's value, known to all threads
__device__ __forceinline__ double block_sum(double value, double (&partial)[kThreads]) {
  partial[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (int(threadIdx.x) < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  const double total = partial[0];
  __syncthreads();
  return total;
}

struct Pair {
  double first, second;
};

// Sums over the threads that are a multiple of `width` apart, a power of two; in place, for the first `width` threads
__device__ __forceinline__ void add_apart(Pair (&sums)[kThreads], int width) {
  __syncthreads();
  for (int half = kThreads / 2; half >= width; half /= 2) {
    if (int(threadIdx.x) < half) {
      sums[threadIdx.x].first += sums[threadIdx.x + half].first;
      sums[threadIdx.x].second += sums[threadIdx.x + half].second;
    }
    __syncthreads();
  }
}

}  // namespace cuda
}  // namespace fastsnn
