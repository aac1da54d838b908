#include "../core/ots.h"
#include "moments.h"
#include "surrogate.h"

// OTS: charge and moments of u in one pass and the merge of its blocks; once the threshold is known, fire, reset and
// trace in another.
namespace fastsnn {
namespace cuda {

template <class T, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    ots_charge_kernel(const Lif<S> p, const OtsCharge k, const S start) {
  FASTSNN_SHARED(S, origin, 1);
  FASTSNN_SHARED(Pair, sums, kThreads);
  const int64_t at = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V;
  S x[V], u[V]{};
  if (at < k.n) {
    load(static_cast<const T*>(k.x) + at, x);
    load_or<S>(k.v, at, start, u);
#pragma unroll
    for (int j = 0; j < V; j++) u[j] = charge(u[j], x[j], p);
    store(static_cast<S*>(k.u) + at, u);
  }
  put_block_moments(u, k.n, k.workspace, origin, sums);
}

// The second stage: one block
template <int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) ots_merge_kernel(const OtsCharge k) {
  FASTSNN_SHARED(Moments, partial, kThreads);
  const Moments all = merge_blocks<V>(k.n, k.workspace, partial);
  if (threadIdx.x > 0) return;
  k.moments[0] = all.mean;
  k.moments[1] = all.m2;
}

template <class T, Reset reset, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void fire_neurons(const Lif<S>& p, const OtsFire& k, int64_t at) {
  S u[V], keep[V], a[V];  // u becomes v, keep s
  load(static_cast<const S*>(k.u) + at, u);
  load_or<S>(k.keep, at, S(1), keep);
  load_or<S>(k.trace, at, S(0), a);
#pragma unroll
  for (int j = 0; j < V; j++) {
    const Fired<S> o = fire<reset>(p, u[j], keep[j], a[j]);
    keep[j] = o.s;
    u[j] = o.v;
    a[j] = o.a;
  }
  store(static_cast<T*>(k.spikes) + at, keep);
  store(static_cast<S*>(k.v) + at, u);
  store_to<S>(k.trace_out, at, a);
}

template <class T, Reset reset, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) ots_fire_kernel(const Lif<S> params, const OtsFire k) {
  const Lif<S> p = lif_at(params, k.threshold);
  for_each_vector<V>(k.n, [&](int64_t at, auto width) { fire_neurons<T, reset, decltype(width)::value>(p, k, at); });
}

template <class T, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void gradient_neurons(const Lif<S>& p, const OtsBackward& k, int shape, int64_t at) {
  S u[V], keep[V], g[V], sg[V];
  load(static_cast<const S*>(k.u) + at, u);
  load_or<S>(k.keep, at, S(1), keep);
  load(static_cast<const T*>(k.g_spikes) + at, g);
  surrogates(shape, p, u, sg);
#pragma unroll
  for (int j = 0; j < V; j++) g[j] = online_gradient(p, g[j], keep[j], sg[j]);
  store(static_cast<T*>(k.g_x) + at, g);
}

template <class T, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    ots_backward_kernel(const Lif<S> params, const OtsBackward k, const int shape) {
  const Lif<S> p = lif_at(params, k.threshold);
  for_each_vector<V>(k.n,
                     [&](int64_t at, auto width) { gradient_neurons<T, decltype(width)::value>(p, k, shape, at); });
}

void ots_charge(const LifParams& params, const OtsCharge& k, const Stream& on) {
  if (!k.workspace) throw std::invalid_argument("the sums of blocks need a workspace");
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    using S = typename StateOf<T>::type;
    const Lif<S> p = lif_of<S>(params);
    const S start = Reset(params.reset) == Reset::hard ? p.v_reset : S(0);
    with_whole_vectors<T>(all_aligned(k.x, k.v, k.u), k.n, [&](auto width) {
      constexpr int V = decltype(width)::value;
      launch(ots_charge_kernel<T, V, S>, blocks_of<V>(k.n), on, p, k, start);
      launch(ots_merge_kernel<V>, 1, on, k);
    });
  });
}

void ots_fire(const LifParams& params, const OtsFire& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    using S = typename StateOf<T>::type;
    const bool aligned = all_aligned(k.u, k.trace, k.keep, k.spikes, k.v, k.trace_out);
    with_reset(params, [&](auto reset) {
      with_vector<T>(aligned, 1, k.n, [&](auto width) {
        constexpr int V = decltype(width)::value;
        launch(ots_fire_kernel<T, decltype(reset)::value, V, S>, blocks_of<V>(k.n), on, lif_of<S>(params), k);
      });
    });
  });
}

void ots_backward(const LifParams& params, const OtsBackward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    using S = typename StateOf<T>::type;
    with_vector<T>(all_aligned(k.u, k.g_spikes, k.keep, k.g_x), 1, k.n, [&](auto width) {
      constexpr int V = decltype(width)::value;
      launch(ots_backward_kernel<T, V, S>, blocks_of<V>(k.n), on, lif_of<S>(params), k, params.surrogate);
    });
  });
}

}  // namespace cuda
}  // namespace fastsnn
