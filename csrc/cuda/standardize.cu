#include "../core/standardize.h"
#include "rows.h"
#include "sums.h"

// One output channel a block; sums in double, in a fixed order, so that they repeat bitwise.
namespace fastsnn {
namespace cuda {

using namespace FASTSNN_ISA;

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) standardize_forward_kernel(const StandardizeForward k) {
  using S = typename StateOf<T>::type;
  FASTSNN_SHARED(double, partial, kThreads);
  const int64_t r = blockIdx.x;
  const T* w = static_cast<const T*>(k.weight) + r * k.cols;
  T* out = static_cast<T*>(k.out) + r * k.cols;
  S row[V];
  double sum = 0.0, squares = 0.0;
  for_each_column<V>(k.cols, [&](int64_t at) {
    load(w + at, row);
#pragma unroll
    for (int j = 0; j < V; j++) sum += double(row[j]);
  });
  const double mean = block_sum(sum, partial) / double(k.cols);
  for_each_column<V>(k.cols, [&](int64_t at) {
    load(w + at, row);
#pragma unroll
    for (int j = 0; j < V; j++) squares += (double(row[j]) - mean) * (double(row[j]) - mean);
  });
  const double inv = standardize_inverse(block_sum(squares, partial), double(k.cols), k.eps);
  const double scale = double(widen(static_cast<const T*>(k.gain)[r])) * inv;
  for_each_column<V>(k.cols, [&](int64_t at) {
    load(w + at, row);
#pragma unroll
    for (int j = 0; j < V; j++) row[j] = S((double(row[j]) - mean) * scale);
    store(out + at, row);
  });
  if (threadIdx.x == 0) {
    static_cast<double*>(k.mean)[r] = mean;
    static_cast<double*>(k.inverse)[r] = inv;
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) standardize_backward_kernel(const StandardizeBackward k) {
  using S = typename StateOf<T>::type;
  FASTSNN_SHARED(double, partial, kThreads);
  const int64_t r = blockIdx.x;
  const T* w = static_cast<const T*>(k.weight) + r * k.cols;
  const T* g_out = static_cast<const T*>(k.g_out) + r * k.cols;
  T* g_w = static_cast<T*>(k.g_weight) + r * k.cols;
  const double mean = static_cast<const double*>(k.mean)[r];
  const double inv = static_cast<const double*>(k.inverse)[r];
  const double gain = widen(static_cast<const T*>(k.gain)[r]);
  S row[V], g[V];
  double sum_g = 0.0, sum_g_xc = 0.0;
  for_each_column<V>(k.cols, [&](int64_t at) {
    load(w + at, row);
    load(g_out + at, g);
#pragma unroll
    for (int j = 0; j < V; j++) {
      sum_g += double(g[j]);
      sum_g_xc += double(g[j]) * (double(row[j]) - mean);
    }
  });
  const double mean_g = block_sum(sum_g, partial) / double(k.cols);
  const double g_xc = block_sum(sum_g_xc, partial);
  const double pull = standardize_pull(g_xc, inv, gain, double(k.cols));
  for_each_column<V>(k.cols, [&](int64_t at) {
    load(w + at, row);
    load(g_out + at, g);
#pragma unroll
    for (int j = 0; j < V; j++) {
      row[j] = S(standardize_grad(double(g[j]), mean_g, double(row[j]) - mean, inv, gain, pull));
    }
    store(g_w + at, row);
  });
  if (threadIdx.x == 0) narrow(S(g_xc * inv), static_cast<T*>(k.g_gain)[r]);
}

void standardize_forward(const StandardizeForward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_row_vector<T>(k.cols, all_aligned(k.weight, k.out), [&](auto width) {
      launch(standardize_forward_kernel<T, decltype(width)::value>, k.rows, on, k);
    });
  });
}

void standardize_backward(const StandardizeBackward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_row_vector<T>(k.cols, all_aligned(k.weight, k.g_out, k.g_weight), [&](auto width) {
      launch(standardize_backward_kernel<T, decltype(width)::value>, k.rows, on, k);
    });
  });
}

}  // namespace cuda
}  // namespace fastsnn
