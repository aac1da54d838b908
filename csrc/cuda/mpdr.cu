#include "../core/mpdr.h"
#include "moments.h"
#include "surrogate.h"

// LIF with MPDR: the forward also adds up u of every step, which another launch takes together; the backward adds two
// coefficients.
namespace fastsnn {
namespace cuda {

// A thread without neurons joins the sums.
template <class T, Reset reset, Trace trace, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    mpdr_forward_kernel(const Lif<S> p, const MpdrForward k, const S first_threshold) {
  FASTSNN_SHARED(S, origin, 1);
  FASTSNN_SHARED(Pair, sums, kThreads);
  const int64_t at = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V;
  const bool there = at < k.n;
  S u[V]{}, a[V]{}, e[V]{};
  if (there) {
    load_or<S>(k.potential, at, initial_v<reset>(p), u);
    if constexpr (trace != Trace::none) load_or<S>(k.trace, at, S(0), a);
    if constexpr (has_ratio(trace)) load_or<S>(k.ratio, at, S(0), e);
  }
  S threshold_prev = first_threshold;
  bool first = k.first;
  int64_t row = at;
  for (int64_t t = 0; t < k.T; t++, row += k.n) {
    if (there) {
      S x[V], keep[V];
      load(static_cast<const T*>(k.x) + row, x);
      load_or<S>(k.keep, at, S(1), keep);  // again each step, for want of registers
      advance_all<reset, trace>(p, keep, threshold_prev, first, x, u, a, e);
      store(static_cast<T*>(k.spikes) + row, x);
      if constexpr (trace != Trace::none) store(static_cast<S*>(k.trace_seq) + row, a);
      store_to<S>(k.u_seq, row, u);
      if (k.v_seq) store(static_cast<S*>(k.v_seq) + row, potentials_after<reset>(p, u, x));
    }
    put_block_moments(u, k.n, static_cast<double*>(k.room) + 2 * t * gridDim.x, origin, sums);
    threshold_prev = p.threshold;
    first = false;
  }
  if (!there) return;
  store_to<S>(k.u_last, at, u);
  if constexpr (has_ratio(trace)) store_to<S>(k.ratio_last, at, e);
  S v[V];
  if (k.v_last) store(static_cast<S*>(k.v_last) + at, potentials_after<reset>(p, u, v));
}

// The second stage: a block a step
template <int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) mpdr_merge_kernel(const MpdrForward k) {
  FASTSNN_SHARED(Moments, partial, kThreads);
  const int64_t t = blockIdx.x;
  const double* room = static_cast<const double*>(k.room) + 2 * t * blocks_of<V>(k.n);
  const Moments all = merge_blocks<V>(k.n, room, partial);
  if (threadIdx.x > 0) return;
  double* moments = static_cast<double*>(k.moments) + 2 * t;
  moments[0] = all.mean;
  moments[1] = variance<S>(all);
}

// u of a step is saved; that of a sequence is recomputed from x
template <class T, Reset reset, bool saved, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void pulled_online_neurons(const Lif<S>& p, const MpdrBackward& k, S threshold_prev,
                                                      int shape, int64_t at) {
  S x[V], keep[V], u[V], g_s[V], sg[V];
  if constexpr (!saved) load_or<S>(k.potential, at, initial_v<reset>(p), u);
  int64_t row = at;
  for (int64_t t = 0; t < k.T; t++, row += k.n) {
    if constexpr (saved) {
      load(static_cast<const S*>(k.u) + row, u);
    } else {
      load(static_cast<const T*>(k.x) + row, x);
#pragma unroll
      for (int j = 0; j < V; j++) {
        u[j] = advance<reset, Trace::none>(p, x[j], S(1), u[j], S(0), S(0), threshold_prev, false).u;
      }
      threshold_prev = p.threshold;
    }
    const Pull<S> q = pull_at<S>(k, t);
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
      for (int j = 0; j < V; j++) g_s[j] = pulled_gradient(p, q, g_s[j], keep[j], u[j], sg[j]);
    }
    store(static_cast<T*>(k.g_x) + row, g_s);
  }
}

// u of every step is saved
template <class T, Reset reset, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void pulled_bptt_neurons(const Lif<S>& p, const MpdrBackward& k, int shape, int64_t at) {
  S keep[V], u[V], g_s[V], g_v[V], sg[V];  // keep is first the gradient of v[t] as an output, g_s becomes g_x
  load_or<S>(k.g_v_last, at, S(0), g_v);
  int64_t row = at + (k.T - 1) * k.n;
  for (int64_t t = k.T - 1; t >= 0; t--, row -= k.n) {
    load(static_cast<const S*>(k.u) + row, u);
    const Pull<S> q = pull_at<S>(k, t);
    surrogates(shape, p, u, sg);
    load_or<S>(k.g_v_seq, row, S(0), keep);
#pragma unroll
    for (int j = 0; j < V; j++) g_v[j] += keep[j];
    load_or<S>(k.keep, at, S(1), keep);
    load_or<T>(k.g_spikes, row, S(0), g_s);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const S g_u = pulled_potential_gradient<reset>(p, q, g_s[j], keep[j], g_v[j], u[j], sg[j]);
      g_s[j] = p.gain * g_u;
      g_v[j] = p.leak * g_u;
    }
    store(static_cast<T*>(k.g_x) + row, g_s);
  }
  store_to<S>(k.g_v_first, at, g_v);
}

template <class T, Reset reset, bool saved, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    mpdr_backward_online_kernel(const Lif<S> p, const MpdrBackward k, const S first_threshold, const int shape) {
  for_each_vector<V>(k.n, [&](int64_t at, auto width) {
    pulled_online_neurons<T, reset, saved, decltype(width)::value>(p, k, first_threshold, shape, at);
  });
}

template <class T, Reset reset, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    mpdr_backward_bptt_kernel(const Lif<S> p, const MpdrBackward k, const int shape) {
  for_each_vector<V>(
      k.n, [&](int64_t at, auto width) { pulled_bptt_neurons<T, reset, decltype(width)::value>(p, k, shape, at); });
}

void mpdr_forward(const LifParams& params, const MpdrForward& k, const Stream& on) {
  if (!k.room) throw std::invalid_argument("the sums of blocks need room");
  const bool aligned = all_aligned(k.x, k.potential, k.trace, k.ratio, k.keep, k.spikes, k.u_last, k.u_seq, k.v_last,
                                   k.v_seq, k.trace_seq, k.ratio_last);
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    using S = typename StateOf<T>::type;
    with_rule(params, [&](auto reset, auto trace) {
      with_whole_vectors<T>(aligned, k.n, [&](auto width) {
        constexpr int V = decltype(width)::value;
        launch(mpdr_forward_kernel<T, decltype(reset)::value, decltype(trace)::value, V, S>, blocks_of<V>(k.n), on,
               lif_of<S>(params), k, first_threshold<S>(params, k));
        launch(mpdr_merge_kernel<V, S>, k.T, on, k);
      });
    });
  });
}

bool aligned(const MpdrBackward& k) {
  return all_aligned(k.g_spikes, k.keep, k.u, k.x, k.potential, k.g_v_last, k.g_v_seq, k.g_x, k.g_v_first, k.g_local);
}

template <class T, Reset reset, bool saved>
void mpdr_backward_online_as(const LifParams& params, const MpdrBackward& k, const Stream& on) {
  using S = typename StateOf<T>::type;
  with_vector<T>(aligned(k), k.T, k.n, [&](auto width) {
    constexpr int V = decltype(width)::value;
    launch(mpdr_backward_online_kernel<T, reset, saved, V, S>, blocks_of<V>(k.n), on, lif_of<S>(params), k,
           first_threshold<S>(params, k), params.surrogate);
  });
}

void mpdr_backward_online(const LifParams& p, const MpdrBackward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    // with u at hand the reset does not enter
    if (k.u) return mpdr_backward_online_as<T, Reset::soft, true>(p, k, on);
    with_reset(p, [&](auto reset) { mpdr_backward_online_as<T, decltype(reset)::value, false>(p, k, on); });
  });
}

void mpdr_backward_bptt(const LifParams& params, const MpdrBackward& k, const Stream& on) {
  if (!k.u) throw std::invalid_argument("u of every step must be given");
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    using S = typename StateOf<T>::type;
    with_reset(params, [&](auto reset) {
      with_vector<T>(aligned(k), k.T, k.n, [&](auto width) {
        constexpr int V = decltype(width)::value;
        launch(mpdr_backward_bptt_kernel<T, decltype(reset)::value, V, S>, blocks_of<V>(k.n), on, lif_of<S>(params), k,
               params.surrogate);
      });
    });
  });
}

}  // namespace cuda
}  // namespace fastsnn
