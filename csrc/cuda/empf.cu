#include "../core/empf.h"
#include "sums.h"
#include "vector.h"

// EM-PF: element-wise passes, a thread V neurons of one channel; passes with sums, a block one part of one channel.
namespace fastsnn {
namespace cuda {

using namespace FASTSNN_ISA;

template <class S>
__device__ __forceinline__ S value(const void* parameter, int64_t at) {
  return static_cast<const S*>(parameter)[at];
}

// v, which may be absent, of one neuron
template <class S>
__device__ __forceinline__ S value_or_zero(const void* v, int64_t at) {
  return v ? static_cast<const S*>(v)[at] : S(0);
}

__device__ __forceinline__ int64_t channel_of(const EmpfShape& k, int64_t at) {
  return k.channels == 1 ? 0 : at / k.inner % k.channels;
}

template <class T, bool stateful, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void fire_neurons(const EmpfForward& k, int64_t at) {
  const int64_t c = channel_of(k, at);
  S x[V], v[V];  // x becomes s
  load_or<S>(k.v, at, S(0), v);
  for (int64_t t = 0; t < k.T; t++) {
    const int64_t row = t * k.n + at, p = t * k.channels + c;
    const S leak = stateful ? value<S>(k.leak, p) : S(0), threshold = value<S>(k.threshold, p);
    load(static_cast<const T*>(k.x) + row, x);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const S m = stateful ? leaky(leak, v[j], x[j]) : x[j];
      v[j] = clipped(m, threshold);
      x[j] = m - v[j];
    }
    store(static_cast<T*>(k.spikes) + row, x);
    if constexpr (stateful) store_to<S>(k.v_seq, row, v);
  }
  if constexpr (stateful) store_to<S>(k.v_last, at, v);
}

template <class T, bool stateful, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) empf_forward_kernel(const EmpfForward k) {
  for_each_vector<V>(k.n, [&](int64_t at, auto width) { fire_neurons<T, stateful, decltype(width)::value>(k, at); });
}

template <class T, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void norm_neurons(const EmpfNormForward& k, int64_t at) {
  const int64_t c = channel_of(k, at);
  const S mean = value<S>(k.mean, c), inverse = value<S>(k.inverse, c), threshold = value<S>(k.threshold, c);
  const S alpha = value<S>(k.alpha, c), beta = value<S>(k.beta, c);
  const S gamma = value<S>(k.gamma, c), bias = value<S>(k.bias, c);
  S m[V], v[V];  // m becomes s
  load(static_cast<const S*>(k.m) + at, m);
#pragma unroll
  for (int j = 0; j < V; j++) {
    const S mh = membrane_norm(m[j], standardized(m[j], mean, inverse), alpha, beta, gamma, bias);
    v[j] = clipped(mh, threshold);
    m[j] = mh - v[j];
  }
  store(static_cast<T*>(k.spikes) + at, m);
  store(static_cast<S*>(k.v_last) + at, v);
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) empf_norm_forward_kernel(const EmpfNormForward k) {
  for_each_vector<V>(k.n, [&](int64_t at, auto width) { norm_neurons<T, decltype(width)::value>(k, at); });
}

// Calls f(V): 16 bytes of T where every pointer is aligned and a vector never spans two channels, else 1.
template <class T, class F>
void with_channel_vector(const EmpfShape& k, bool aligned, const F& f) {
  with_vector<T>(aligned && (k.channels == 1 || k.inner % kVector<T> == 0), k.T, k.n, f);
}

// A block's channel and part; body(at) runs for every neuron of both, in the order of the thread's own.
struct Part {
  int64_t channel, index;
  __device__ explicit Part(const EmpfShape& k) : channel(blockIdx.x / k.parts), index(blockIdx.x % k.parts) {}

  template <class Body>
  __device__ __forceinline__ void each(const EmpfShape& k, const Body& body) const {
    const int64_t count = k.n / k.channels, end = count * (index + 1) / k.parts;
#pragma unroll 1
    for (int64_t j = count * index / k.parts + threadIdx.x; j < end; j += kThreads) {
      body(k.channels == 1 ? j : (j / k.inner * k.channels + channel) * k.inner + j % k.inner);
    }
  }

  // Where the sum of step t belongs in [parts, T, channels]
  __device__ __forceinline__ void put(const EmpfShape& k, void* sums, int64_t t, double sum) const {
    if (threadIdx.x == 0) static_cast<double*>(sums)[(index * k.T + t) * k.channels + channel] = sum;
  }
};

template <class T, bool stateful, int V, class S = typename StateOf<T>::type>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) empf_backward_kernel(const EmpfBackward k) {
  FASTSNN_SHARED(double, partial, kThreads);
  const Part part(k);
  for (int64_t t = 0; t < k.T; t++) {
    const S threshold = value<S>(k.threshold, t * k.channels + part.channel);
    const void* before = t == 0 || !stateful ? k.v : static_cast<const S*>(k.v_seq) + (t - 1) * k.n;
    double sum = 0.0, sum_v = 0.0;
    part.each(k, [&](int64_t at) {
      const int64_t row = t * k.n + at;
      const S v = stateful ? value<S>(k.v_seq, row) : S(widen(static_cast<const T*>(k.x)[row]));
      const S g_m = fired_gradient(S(widen(static_cast<const T*>(k.g_spikes)[row])), v, threshold);
      narrow(g_m, static_cast<T*>(k.g_x)[row]);
      sum -= double(g_m);
      if (stateful) sum_v += double(g_m) * double(value_or_zero<S>(before, at));
    });
    part.put(k, k.g_threshold, t, block_sum(sum, partial));
    if (stateful) part.put(k, k.g_leak, t, block_sum(sum_v, partial));
  }
}

template <class T, int V, class S = typename StateOf<T>::type>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) empf_potential_kernel(const EmpfPotential k) {
  FASTSNN_SHARED(double, partial, kThreads);
  const Part part(k);
  const S leak = value<S>(k.leak, part.channel);
  const auto potential = [&](int64_t at) {
    return leaky(leak, value_or_zero<S>(k.v, at), S(widen(static_cast<const T*>(k.x)[at])));
  };
  const double shift = potential(part.channel * k.inner);
  double sum = 0.0, squares = 0.0;
  part.each(k, [&](int64_t at) {
    const S m = potential(at);
    static_cast<S*>(k.m)[at] = m;
    const double d = double(m) - shift;
    sum += d;
    squares += d * d;
  });
  if (!k.sums) return;
  part.put(k, k.sums, 0, block_sum(sum, partial));
  part.put(k, k.squares, 0, block_sum(squares, partial));
  if (part.index == 0 && threadIdx.x == 0) static_cast<double*>(k.shift)[part.channel] = shift;
}

template <class T, int V, class S = typename StateOf<T>::type>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) empf_norm_sums_kernel(const EmpfNormSums k) {
  FASTSNN_SHARED(double, partial, kThreads);
  const Part part(k);
  const int64_t c = part.channel;
  const S mean = value<S>(k.mean, c), inverse = value<S>(k.inverse, c), threshold = value<S>(k.threshold, c);
  double sum = 0.0, sum_xhat = 0.0;
  part.each(k, [&](int64_t at) {
    const S g_s = widen(static_cast<const T*>(k.g_spikes)[at]);
    const double g_mh = fired_gradient(g_s, value<S>(k.v_last, at), threshold);
    sum += g_mh;
    sum_xhat += g_mh * double(standardized(value<S>(k.m, at), mean, inverse));
  });
  part.put(k, k.g_mh, 0, block_sum(sum, partial));
  part.put(k, k.g_mh_xhat, 0, block_sum(sum_xhat, partial));
}

template <class T, int V, class S = typename StateOf<T>::type>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) empf_norm_backward_kernel(const EmpfNormBackward k) {
  FASTSNN_SHARED(double, partial, kThreads);
  const Part part(k);
  const int64_t c = part.channel;
  const S mean = value<S>(k.mean, c), inverse = value<S>(k.inverse, c), threshold = value<S>(k.threshold, c);
  const S alpha = value<S>(k.alpha, c), beta = value<S>(k.beta, c), scale = value<S>(k.gamma, c) * inverse;
  const S pull = value<S>(k.pull, c), pull_xhat = value<S>(k.pull_xhat, c);
  double sum = 0.0;
  part.each(k, [&](int64_t at) {
    const S g_s = widen(static_cast<const T*>(k.g_spikes)[at]);
    const S g_mh = fired_gradient(g_s, value<S>(k.v_last, at), threshold);
    const S xhat = standardized(value<S>(k.m, at), mean, inverse);
    const S g_m = norm_gradient(g_mh, xhat, alpha, beta, scale, pull, pull_xhat);
    narrow(g_m, static_cast<T*>(k.g_x)[at]);
    sum += double(g_m) * double(value_or_zero<S>(k.v, at));
  });
  part.put(k, k.g_leak, 0, block_sum(sum, partial));
}

void empf_forward(const EmpfForward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_channel_vector<T>(k, all_aligned(k.x, k.v, k.spikes, k.v_last, k.v_seq), [&](auto width) {
      constexpr int V = decltype(width)::value;
      launch(k.leak ? empf_forward_kernel<T, true, V> : empf_forward_kernel<T, false, V>, blocks_of<V>(k.n), on, k);
    });
  });
}

void empf_norm_forward(const EmpfNormForward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_channel_vector<T>(k, all_aligned(k.m, k.spikes, k.v_last), [&](auto width) {
      constexpr int V = decltype(width)::value;
      launch(empf_norm_forward_kernel<T, V>, blocks_of<V>(k.n), on, k);
    });
  });
}

void empf_backward(const EmpfBackward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(k.v_seq ? empf_backward_kernel<T, true, 1> : empf_backward_kernel<T, false, 1>, k.channels * k.parts, on, k);
  });
}

void empf_potential(const EmpfPotential& k, const Stream& on) {
  with_dtype(k.dtype,
             [&](auto zero) { launch(empf_potential_kernel<decltype(zero), 1>, k.channels * k.parts, on, k); });
}

void empf_norm_sums(const EmpfNormSums& k, const Stream& on) {
  with_dtype(k.dtype,
             [&](auto zero) { launch(empf_norm_sums_kernel<decltype(zero), 1>, k.channels * k.parts, on, k); });
}

void empf_norm_backward(const EmpfNormBackward& k, const Stream& on) {
  with_dtype(k.dtype,
             [&](auto zero) { launch(empf_norm_backward_kernel<decltype(zero), 1>, k.channels * k.parts, on, k); });
}

}  // namespace cuda
}  // namespace fastsnn
