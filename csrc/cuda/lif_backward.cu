#include "surrogate.h"

// One launch for a step (T = 1) or a sequence.
namespace fastsnn {
namespace cuda {

// u of a step is saved; that of a sequence is recomputed from x
template <class T, Reset reset, bool saved, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void online_neurons(const Lif<S>& p, const LifBackward& k, S threshold_prev, int shape,
                                               int64_t at) {
  S x[V], keep[V], u[V], g_s[V], sg[V];
  if constexpr (!saved) load_or<S>(k.potential, at, initial_v<reset>(p), u);
  int64_t row = at;
  for (int64_t t = 0; t < k.T; t++, row += k.n) {
    if constexpr (saved) {
      load(static_cast<const S*>(k.u) + row, u);
    } else {
      load_or<T>(k.x, row, S(0), x);
#pragma unroll
      for (int j = 0; j < V; j++) {
        u[j] = advance<reset, Trace::none>(p, x[j], S(1), u[j], S(0), S(0), threshold_prev, false).u;
      }
      threshold_prev = p.threshold;
    }
    surrogates(shape, p, u, sg);
    load_or<S>(k.keep, at, S(1), keep);  // again each step, for want of registers
    load_or<T>(k.g_spikes, row, S(0), g_s);
#pragma unroll
    for (int j = 0; j < V; j++) g_s[j] = online_gradient(p, g_s[j], keep[j], sg[j]);
    store(static_cast<T*>(k.g_x) + row, g_s);
  }
}

template <int V, class S>
__device__ __forceinline__ void add(const S (&term)[V], S (&sum)[V]) {
#pragma unroll
  for (int j = 0; j < V; j++) sum[j] += term[j];
}

// u of every step is saved
template <class T, Reset reset, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void bptt_neurons(const Lif<S>& p, const LifBackward& k, int shape, int64_t at) {
  S keep[V], u[V], g_s[V], g_v[V], sg[V];  // keep becomes the gradient of v[t] as an output, g_s becomes g_x
  load_or<S>(k.g_v_last, at, S(0), g_v);
  int64_t row = at + (k.T - 1) * k.n;
  for (int64_t t = 0; t < k.T; t++, row -= k.n) {
    load(static_cast<const S*>(k.u) + row, u);
    surrogates(shape, p, u, sg);
    load_or<S>(k.g_v_seq, row, S(0), keep);
    add(keep, g_v);
    load_or<S>(k.keep, at, S(1), keep);
    load_or<T>(k.g_spikes, row, S(0), g_s);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const S g_u = potential_gradient<reset>(p, g_s[j], keep[j], g_v[j], u[j], sg[j]);
      g_s[j] = p.gain * g_u;
      g_v[j] = p.leak * g_u;
    }
    store(static_cast<T*>(k.g_x) + row, g_s);
  }
  store_to<S>(k.g_v_first, at, g_v);
}

template <class T, Reset reset, bool saved, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    lif_backward_online_kernel(const Lif<S> p, const LifBackward k, const S first_threshold, const int shape) {
  for_each_vector<V>(k.n, [&](int64_t at, auto width) {
    online_neurons<T, reset, saved, decltype(width)::value>(p, k, first_threshold, shape, at);
  });
}

template <class T, Reset reset, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    lif_backward_bptt_kernel(const Lif<S> p, const LifBackward k, const int shape) {
  for_each_vector<V>(k.n,
                     [&](int64_t at, auto width) { bptt_neurons<T, reset, decltype(width)::value>(p, k, shape, at); });
}

inline bool aligned(const LifBackward& k) {
  return all_aligned(k.g_spikes, k.keep, k.u, k.x, k.potential, k.g_v_last, k.g_v_seq, k.g_x, k.g_v_first);
}

template <class T, Reset reset, bool saved>
void lif_backward_online_as(const LifParams& params, const LifBackward& k, const Stream& on) {
  using S = typename StateOf<T>::type;
  with_vector<S>(aligned(k), k.T, k.n, [&](auto width) {
    constexpr int V = decltype(width)::value;
    launch(lif_backward_online_kernel<T, reset, saved, V, S>, blocks_of<V>(k.n), on, lif_of<S>(params), k,
           first_threshold<S>(params, k), params.surrogate);
  });
}

void lif_backward_online(const LifParams& p, const LifBackward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    // with u at hand the reset does not enter
    if (k.u) return lif_backward_online_as<T, Reset::soft, true>(p, k, on);
    with_reset(p, [&](auto reset) { lif_backward_online_as<T, decltype(reset)::value, false>(p, k, on); });
  });
}

template <class T, Reset reset>
void lif_backward_bptt_as(const LifParams& params, const LifBackward& k, const Stream& on) {
  using S = typename StateOf<T>::type;
  with_vector<S>(aligned(k), k.T, k.n, [&](auto width) {
    constexpr int V = decltype(width)::value;
    launch(lif_backward_bptt_kernel<T, reset, V, S>, blocks_of<V>(k.n), on, lif_of<S>(params), k, params.surrogate);
  });
}

void lif_backward_bptt(const LifParams& p, const LifBackward& k, const Stream& on) {
  if (!k.u) throw std::invalid_argument("u of every step must be given");
  with_dtype(k.dtype, [&](auto zero) {
    with_reset(p, [&](auto reset) { lif_backward_bptt_as<decltype(zero), decltype(reset)::value>(p, k, on); });
  });
}

}  // namespace cuda
}  // namespace fastsnn
