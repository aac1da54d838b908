#pragma once

#include "../core/moments.h"
#include "sums.h"
#include "vector.h"

// Moments of parts and of blocks, taken together in a fixed order.
namespace fastsnn {
namespace cuda {

using FASTSNN_ISA::Moments;

// Moments of `parts` parts, of which part(i) are those of the i-th; for thread 0
template <class Part>
__device__ __forceinline__ Moments merge_parts(int64_t parts, Moments (&partial)[kThreads], const Part& part) {
  const int own = int(threadIdx.x);
  Moments mine{0.0, 0.0, 0.0};
#pragma unroll 1
  for (int64_t i = own; i < parts; i += kThreads) mine = FASTSNN_ISA::merge(mine, part(i));
  partial[own] = mine;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (own < half) partial[own] = FASTSNN_ISA::merge(partial[own], partial[own + half]);
    __syncthreads();
  }
  return partial[0];
}

// A whole tensor of n neurons in blocks of kThreads * V, a thread V neighbours or none.
template <int V>
__host__ __device__ int64_t block_neurons(int64_t n, int64_t block) {
  constexpr int64_t per_block = int64_t(kThreads) * V;
  return n - block * per_block < per_block ? n - block * per_block : per_block;
}

// Mean and M2 of a block's values into workspace [blocks, 2], relative to its first one
template <int V, class S>
__device__ __forceinline__ void put_block_moments(const S (&u)[V], int64_t n, double* workspace, S (&origin)[1],
                                                  Pair (&sums)[kThreads]) {
  const int64_t count = block_neurons<V>(n, blockIdx.x);
  if (threadIdx.x == 0) origin[0] = u[0];
  __syncthreads();
  Pair sum{0.0, 0.0};
  if (int(threadIdx.x) * V < count) {
#pragma unroll
    for (int j = 0; j < V; j++) {
      const double d = double(u[j]) - double(origin[0]);
      sum.first += d;
      sum.second += d * d;
    }
  }
  sums[threadIdx.x] = sum;
  add_apart(sums, 1);
  if (threadIdx.x > 0) return;
  const Moments all = FASTSNN_ISA::moments_of(double(count), double(origin[0]), sums[0].first, sums[0].second);
  workspace[2 * int64_t(blockIdx.x)] = all.mean;
  workspace[2 * int64_t(blockIdx.x) + 1] = all.m2;
}

// Those of all blocks; for thread 0
template <int V>
__device__ __forceinline__ Moments merge_blocks(int64_t n, const double* workspace, Moments (&partial)[kThreads]) {
  return merge_parts(blocks_of<V>(n), partial, [&](int64_t block) {
    return Moments{double(block_neurons<V>(n, block)), workspace[2 * block], workspace[2 * block + 1]};
  });
}

}  // namespace cuda
}  // namespace fastsnn
