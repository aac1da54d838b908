#pragma once

#include "lif.h"

// Surrogate derivatives of a thread's neurons; the shape is chosen at run time: one uniform branch a step.
namespace fastsnn {
namespace cuda {

template <Surrogate shape, int V, class S>
__device__ __forceinline__ void surrogates(const Lif<S>& p, const S (&u)[V], S (&sg)[V]) {
#pragma unroll
  for (int j = 0; j < V; j++) sg[j] = surrogate<shape>(u[j] - p.threshold, p.height, p.slope);
}

template <int V, class S>
__device__ __forceinline__ void surrogates(int shape, const Lif<S>& p, const S (&u)[V], S (&sg)[V]) {
  switch (Surrogate(shape)) {
    case Surrogate::sigmoid:
      return surrogates<Surrogate::sigmoid>(p, u, sg);
    case Surrogate::triangle:
      return surrogates<Surrogate::triangle>(p, u, sg);
    case Surrogate::rectangle:
      return surrogates<Surrogate::rectangle>(p, u, sg);
    case Surrogate::rect_open:
      return surrogates<Surrogate::rect_open>(p, u, sg);
    case Surrogate::atan:
      return surrogates<Surrogate::atan>(p, u, sg);
    case Surrogate::piecewise_exp:
      return surrogates<Surrogate::piecewise_exp>(p, u, sg);
    case Surrogate::soft_sign:
      return surrogates<Surrogate::soft_sign>(p, u, sg);
    default:
      return surrogates<Surrogate::erf>(p, u, sg);
  }
}

// One step back in time of a thread's neurons, from u: g_x is stored; g_v and g_m move on.
template <class T, Reset reset, class R, int V, class K, class More, class S>
__device__ __forceinline__ void step_all_back(const Lif<S>& p, const More& more, const K& k, int shape, int64_t at,
                                              int64_t row, const S (&u)[V], S (&g_v)[V], S (&g_m)[kRows<R>][V]) {
  S keep[V], g_s[V], sg[V];  // keep is first the gradient of v[t] as an output, g_s becomes g_x
  surrogates(shape, p, u, sg);
  load_or<S>(k.g_v_seq, row, S(0), keep);
#pragma unroll
  for (int j = 0; j < V; j++) g_v[j] += keep[j];
  load_or<S>(k.keep, at, S(1), keep);
  load_or<T>(k.g_spikes, row, S(0), g_s);
#pragma unroll
  for (int j = 0; j < V; j++) {
    Slots<R, S> own = slots_of<R>(g_m, j);
    g_s[j] = step_back<reset>(p, more, g_s[j] * keep[j], u[j], sg[j], g_v[j], own);
#pragma unroll
    for (int i = 0; i < R::count; i++) g_m[i][j] = own.at[i];
  }
  store(static_cast<T*>(k.g_x) + row, g_s);
}

}  // namespace cuda
}  // namespace fastsnn
