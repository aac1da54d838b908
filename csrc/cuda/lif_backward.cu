#include "surrogate.h"

// One launch for a step (T = 1) or a sequence.
namespace fastsnn {
namespace cuda {

// u of a step is saved; that of a sequence is recomputed from x by R, the rule with the slots that drive spikes alone.
// Each step reads the dropout mask anew, as the forward does.
template <class T, Reset reset, class R, bool saved, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void online_neurons(const Lif<S>& p, const LifBackward& k, S threshold_prev, int shape,
                                               int64_t at) {
  S x[V], keep[V], u[V], m[kRows<R>][V], g_s[V], sg[V];
  if constexpr (!saved) load_or<S>(k.potential, at, initial_v<reset>(p), u);
  if constexpr (!saved) load_slots<R>(k.slots, at, m);
  int64_t row = at;
  for (int64_t t = 0; t < k.T; t++, row += k.n) {
    if constexpr (saved) {
      load(static_cast<const S*>(k.u) + row, u);
    } else {
      load_or<T>(k.x, row, S(0), x);
      advance_potentials<reset, R>(p, threshold_prev, x, u, m);
      threshold_prev = p.threshold;
    }
    surrogates(shape, p, u, sg);
    load_or<S>(k.keep, at, S(1), keep);
    load_or<T>(k.g_spikes, row, S(0), g_s);
#pragma unroll
    for (int j = 0; j < V; j++) g_s[j] = online_gradient(p, g_s[j], keep[j], sg[j]);
    store(static_cast<T*>(k.g_x) + row, g_s);
  }
}

// u of every step is saved
template <class T, Reset reset, class R, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void bptt_neurons(const Lif<S>& p, const LifBackward& k, int shape, int64_t at) {
  S u[V], g_v[V], g_m[kRows<R>][V];
  load_or<S>(k.g_v_last, at, S(0), g_v);
  load_slots<R>(k.g_slots_last, at, g_m);
  int64_t row = at + (k.T - 1) * k.n;
  for (int64_t t = 0; t < k.T; t++, row -= k.n) {
    load(static_cast<const S*>(k.u) + row, u);
    step_all_back<T, reset, R>(p, Nothing(), k, shape, at, row, u, g_v, g_m);
  }
  store_to<S>(k.g_v_first, at, g_v);
  store_slots<R>(k.g_slots_first, at, g_m);
}

template <class T, Reset reset, class R, bool saved, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    lif_backward_online_kernel(const Lif<S> p, const LifBackward k, const S first_threshold, const int shape) {
  for_each_vector<V>(k.n, [&](int64_t at, auto width) {
    online_neurons<T, reset, R, saved, decltype(width)::value>(p, k, first_threshold, shape, at);
  });
}

template <class T, Reset reset, class R, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    lif_backward_bptt_kernel(const Lif<S> p, const LifBackward k, const int shape) {
  for_each_vector<V>(
      k.n, [&](int64_t at, auto width) { bptt_neurons<T, reset, R, decltype(width)::value>(p, k, shape, at); });
}

template <class T, Reset reset, class R, bool saved>
void lif_backward_online_as(const LifParams& params, const LifBackward& k, const Stream& on) {
  using S = typename StateOf<T>::type;
  with_vector<S>(aligned(k), k.T, k.n, [&](auto width) {
    constexpr int V = decltype(width)::value;
    launch(lif_backward_online_kernel<T, reset, R, saved, V, S>, blocks_of<V>(k.n), on, lif_of<S>(params), k,
           first_threshold<S>(params, k), params.surrogate);
  });
}

void lif_backward_online(const LifParams& p, const LifBackward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    // with u at hand neither reset nor rule enters
    if (k.u) return lif_backward_online_as<T, Reset::soft, Untraced, true>(p, k, on);
    with_rule(p, [&](auto reset, auto rule) {
      lif_backward_online_as<T, decltype(reset)::value, DynamicsOf<decltype(rule)>, false>(p, k, on);
    });
  });
}

template <class T, Reset reset, class R>
void lif_backward_bptt_as(const LifParams& params, const LifBackward& k, const Stream& on) {
  using S = typename StateOf<T>::type;
  with_vector<S>(aligned(k), k.T, k.n, [&](auto width) {
    constexpr int V = decltype(width)::value;
    launch(lif_backward_bptt_kernel<T, reset, R, V, S>, blocks_of<V>(k.n), on, lif_of<S>(params), k, params.surrogate);
  });
}

void lif_backward_bptt(const LifParams& p, const LifBackwardBptt& k, const Stream& on) {
  if (!k.u) throw std::invalid_argument("u of every step must be given");
  with_dtype(k.dtype, [&](auto zero) {
    with_rule(p, [&](auto reset, auto rule) {
      lif_backward_bptt_as<decltype(zero), decltype(reset)::value, DynamicsOf<decltype(rule)>>(p, k, on);
    });
  });
}

}  // namespace cuda
}  // namespace fastsnn
