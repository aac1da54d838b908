#pragma once

#include "../core/lif.h"
#include "vector.h"

// What LIF forward and backward share.
namespace fastsnn {
namespace cuda {

using namespace FASTSNN_ISA;

// v[0]: v_reset, or 0 under soft reset
template <Reset reset, class S>
FASTSNN_HD S initial_v(const Lif<S>& p) {
  return reset == Reset::hard ? p.v_reset : S(0);
}

// NaN, which nothing reaches, where the potential was already reset
template <class S, class K>
S first_threshold(const LifParams& p, const K& k) {
  return k.potential_is_v || !k.potential ? std::numeric_limits<S>::quiet_NaN() : S(p.threshold);
}

// One step of a thread's neurons: x becomes s; u, a and e move on.
template <Reset reset, Trace trace, int V, class S>
__device__ __forceinline__ void advance_all(const Lif<S>& p, const S (&keep)[V], S threshold_prev, bool first,
                                            S (&x)[V], S (&u)[V], S (&a)[V], S (&e)[V]) {
#pragma unroll
  for (int j = 0; j < V; j++) {
    const auto o = advance<reset, trace>(p, x[j], keep[j], u[j], a[j], e[j], threshold_prev, first);
    x[j] = o.s;
    u[j] = o.u;
    a[j] = o.a;
    e[j] = o.e;
  }
}

template <Reset reset, int V, class S>
__device__ __forceinline__ S (&potentials_after(const Lif<S>& p, const S (&u)[V], S (&v)[V])) [V] {
#pragma unroll
  for (int j = 0; j < V; j++) v[j] = potential_after<reset>(u[j], u[j] >= p.threshold, p);
  return v;
}

template <class F>
void with_reset(const LifParams& p, const F& f) {
  if (Reset(p.reset) == Reset::hard) {
    f(std::integral_constant<Reset, Reset::hard>());
  } else {
    f(std::integral_constant<Reset, Reset::soft>());
  }
}

// Calls f(reset, trace) of a neuron's rule.
template <class F>
void with_rule(const LifParams& p, const F& f) {
  with_reset(p, [&](auto reset) {
    const auto traced = [&](auto trace) { f(reset, trace); };
    if constexpr (decltype(reset)::value == Reset::soft) {
      if (Trace(p.trace) == Trace::ndot) return traced(std::integral_constant<Trace, Trace::ndot>());
      if (Trace(p.trace) == Trace::ndot_released) return traced(std::integral_constant<Trace, Trace::ndot_released>());
    }
    if (has_ratio(Trace(p.trace))) throw std::invalid_argument("ndot rules need soft reset");
    if (Trace(p.trace) == Trace::ottt) return traced(std::integral_constant<Trace, Trace::ottt>());
    traced(std::integral_constant<Trace, Trace::none>());
  });
}

}  // namespace cuda
}  // namespace fastsnn
