#include "../core/mpdr.h"
#include "moments.h"
#include "surrogate.h"

// LIF with MPDR: the forward also adds up u of every step, which another launch takes together; the backward adds two
// coefficients.
namespace fastsnn {
namespace cuda {

// A thread without neurons joins the sums.
template <class T, Reset reset, class R, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    mpdr_forward_kernel(const Lif<S> p, const MpdrForward k, const S first_threshold) {
  FASTSNN_SHARED(S, origin, 1);
  FASTSNN_SHARED(Pair, sums, kThreads);
  const int64_t at = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V;
  const bool there = at < k.n;
  S u[V]{}, m[kRows<R>][V]{};
  if (there) {
    load_or<S>(k.potential, at, initial_v<reset>(p), u);
    load_slots<R>(k.slots, at, m);
  }
  S threshold_prev = first_threshold;
  bool first = k.first;
  int64_t row = at;
  for (int64_t t = 0; t < k.T; t++, row += k.n) {
    if (there) {
      S x[V], keep[V];
      load(static_cast<const T*>(k.x) + row, x);
      load_or<S>(k.keep, at, S(1), keep);  // anew each step, as lif_forward.cu does
      advance_all<reset, R>(p, keep, threshold_prev, first, x, u, m);
      store(static_cast<T*>(k.spikes) + row, x);
      if constexpr (R::traced) store(static_cast<S*>(k.slots_out[0]) + row, m[0]);
      store_to<S>(k.u_seq, row, u);
      if (k.v_seq) store(static_cast<S*>(k.v_seq) + row, potentials_after<reset, R>(p, u, m, x));
    }
    put_block_moments(u, k.n, static_cast<double*>(k.workspace) + 2 * t * gridDim.x, origin, sums);
    threshold_prev = p.threshold;
    first = false;
  }
  if (!there) return;
  store_to<S>(k.u_last, at, u);
  store_slots<R>(k.slots_out, at, m);
  S v[V];
  if (k.v_last) store(static_cast<S*>(k.v_last) + at, potentials_after<reset, R>(p, u, m, v));
}

// The second stage: a block a step
template <int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) mpdr_merge_kernel(const MpdrForward k) {
  FASTSNN_SHARED(Moments, partial, kThreads);
  const int64_t t = blockIdx.x;
  const double* workspace = static_cast<const double*>(k.workspace) + 2 * t * blocks_of<V>(k.n);
  const Moments all = merge_blocks<V>(k.n, workspace, partial);
  if (threadIdx.x > 0) return;
  double* moments = static_cast<double*>(k.moments) + 2 * t;
  moments[0] = all.mean;
  moments[1] = variance<S>(all);
}

// u of a step is saved; that of a sequence is recomputed from x
template <class T, Reset reset, class R, bool saved, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void mpdr_online_neurons(const Lif<S>& p, const MpdrBackward& k, S threshold_prev, int shape,
                                                    int64_t at) {
  S x[V], keep[V], u[V], m[kRows<R>][V], g_s[V], sg[V];
  if constexpr (!saved) load_or<S>(k.potential, at, initial_v<reset>(p), u);
  if constexpr (!saved) load_slots<R>(k.slots, at, m);
  int64_t row = at;
  for (int64_t t = 0; t < k.T; t++, row += k.n) {
    if constexpr (saved) {
      load(static_cast<const S*>(k.u) + row, u);
    } else {
      load(static_cast<const T*>(k.x) + row, x);
      advance_potentials<reset, R>(p, threshold_prev, x, u, m);
      threshold_prev = p.threshold;
    }
    const MpdrGradient<S> q = mpdr_gradient_at<S>(k, t);
    surrogates(shape, p, u, sg);
    load_or<S>(k.keep, at, S(1), keep);
    load_or<T>(k.g_spikes, row, S(0), g_s);
    if (k.g_local) {
#pragma unroll
      for (int j = 0; j < V; j++) g_s[j] = online_gradient(p, g_s[j], keep[j], sg[j]);
#pragma unroll
      for (int j = 0; j < V; j++) sg[j] = local_gradient(p, q, u[j]);
      store(static_cast<T*>(k.g_local) + row, sg);
    } else {
#pragma unroll
      for (int j = 0; j < V; j++) g_s[j] = mpdr_online_gradient(p, q, g_s[j], keep[j], u[j], sg[j]);
    }
    store(static_cast<T*>(k.g_x) + row, g_s);
  }
}

// u of every step is saved
template <class T, Reset reset, class R, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void mpdr_bptt_neurons(const Lif<S>& p, const MpdrBackward& k, int shape, int64_t at) {
  S u[V], g_v[V], g_m[kRows<R>][V];
  load_or<S>(k.g_v_last, at, S(0), g_v);
  load_slots<R>(k.g_slots_last, at, g_m);
  int64_t row = at + (k.T - 1) * k.n;
  for (int64_t t = k.T - 1; t >= 0; t--, row -= k.n) {
    load(static_cast<const S*>(k.u) + row, u);
    step_all_back<T, reset, R>(p, mpdr_gradient_at<S>(k, t), k, shape, at, row, u, g_v, g_m);
  }
  store_to<S>(k.g_v_first, at, g_v);
  store_slots<R>(k.g_slots_first, at, g_m);
}

template <class T, Reset reset, class R, bool saved, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    mpdr_backward_online_kernel(const Lif<S> p, const MpdrBackward k, const S first_threshold, const int shape) {
  for_each_vector<V>(k.n, [&](int64_t at, auto width) {
    mpdr_online_neurons<T, reset, R, saved, decltype(width)::value>(p, k, first_threshold, shape, at);
  });
}

template <class T, Reset reset, class R, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    mpdr_backward_bptt_kernel(const Lif<S> p, const MpdrBackward k, const int shape) {
  for_each_vector<V>(
      k.n, [&](int64_t at, auto width) { mpdr_bptt_neurons<T, reset, R, decltype(width)::value>(p, k, shape, at); });
}

void mpdr_forward(const LifParams& params, const MpdrForward& k, const Stream& on) {
  if (!k.workspace) throw std::invalid_argument("the sums of blocks need a workspace");
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    using S = typename StateOf<T>::type;
    with_rule(params, [&](auto reset, auto rule) {
      with_whole_vectors<T>(aligned(k), k.n, [&](auto width) {
        constexpr int V = decltype(width)::value;
        launch(mpdr_forward_kernel<T, decltype(reset)::value, RuleType<decltype(rule)::value>, V, S>, blocks_of<V>(k.n),
               on, lif_of<S>(params), k, first_threshold<S>(params, k));
        launch(mpdr_merge_kernel<V, S>, k.T, on, k);
      });
    });
  });
}

template <class T, Reset reset, class R, bool saved>
void mpdr_backward_online_as(const LifParams& params, const MpdrBackward& k, const Stream& on) {
  using S = typename StateOf<T>::type;
  with_vector<T>(aligned(k), k.T, k.n, [&](auto width) {
    constexpr int V = decltype(width)::value;
    launch(mpdr_backward_online_kernel<T, reset, R, saved, V, S>, blocks_of<V>(k.n), on, lif_of<S>(params), k,
           first_threshold<S>(params, k), params.surrogate);
  });
}

void mpdr_backward_online(const LifParams& p, const MpdrBackward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    // with u at hand neither reset nor rule enters
    if (k.u) return mpdr_backward_online_as<T, Reset::soft, Untraced, true>(p, k, on);
    with_rule(p, [&](auto reset, auto rule) {
      mpdr_backward_online_as<T, decltype(reset)::value, DynamicsOf<decltype(rule)>, false>(p, k, on);
    });
  });
}

void mpdr_backward_bptt(const LifParams& params, const MpdrBackwardBptt& k, const Stream& on) {
  if (!k.u) throw std::invalid_argument("u of every step must be given");
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    using S = typename StateOf<T>::type;
    with_rule(params, [&](auto reset, auto rule) {
      with_vector<T>(aligned(k), k.T, k.n, [&](auto width) {
        constexpr int V = decltype(width)::value;
        launch(mpdr_backward_bptt_kernel<T, decltype(reset)::value, DynamicsOf<decltype(rule)>, V, S>,
               blocks_of<V>(k.n), on, lif_of<S>(params), k, params.surrogate);
      });
    });
  });
}

}  // namespace cuda
}  // namespace fastsnn
