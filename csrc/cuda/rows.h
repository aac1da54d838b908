#pragma once

#include "vector.h"

// Rows of a matrix, a block each.
namespace fastsnn {
namespace cuda {

// body(at) for a thread's vectors of a row; V divides cols
template <int V, class Body>
__device__ __forceinline__ void for_each_column(int64_t cols, const Body& body) {
#pragma unroll 1
  for (int64_t at = int64_t(threadIdx.x) * V; at < cols; at += int64_t(kThreads) * V) body(at);
}

// Calls f(V) with V = 16 bytes of T where every row starts on such an address, else 1.
template <class T, class F>
void with_row_vector(int64_t cols, bool aligned, const F& f) {
  with_vector<T>(aligned && cols % kVector<T> == 0, 1, cols, f);
}

}  // namespace cuda
}  // namespace fastsnn
