#pragma once

#include "arguments.h"
#include "rules/list.h"
#include "surrogate.h"

// The LIF neuron under any rule, one element and one step at a time (equations/lif.md).
namespace fastsnn {
namespace FASTSNN_ISA {

template <class S>
struct Lif {
  S leak;        // lam = 1 - 1/tau
  S gain;        // 1, or 1/tau with decay_input
  S bias;        // v_reset/tau
  S threshold;   // th
  S v_reset;     // r
  S reset_grad;  // soft: th, hard: 1; 0 with detach_reset
  S height, slope;
  S of_rule[kMostParameters];  // the rule's own parameters
};

template <class S>
Lif<S> lif_of(const LifParams& p) {
  Lif<S> o{S(p.leak), S(p.gain), S(p.bias), S(p.threshold), S(p.v_reset), S(p.reset_grad), S(p.height), S(p.slope)};
  for (int i = 0; i < kMostParameters; i++) o.of_rule[i] = S(p.of_rule[i]);
  return o;
}

template <class S>
struct Step {
  S s, u, v;
};

// One neuron, one step of rule R, whose slots m move on. u_prev is u[t-1], or v[t-1] with threshold_prev = NaN, which
// nothing reaches: slots that drive spikes are then those after that reset. keep is the dropout mask.
template <Reset reset, class R, class S>
FASTSNN_HD Step<S> advance(const Lif<S>& p, S x, S keep, S u_prev, S threshold_prev, bool first, Slots<R, S>& m) {
  const bool fired_prev = u_prev >= threshold_prev;
  Slots<R, S> moved = m;
  S v_prev = R::template settle<reset>(p, u_prev, fired_prev, moved);
  if constexpr (R::Dynamics::count > 0) {
    const bool settled = !(threshold_prev == threshold_prev);
    v_prev = settled ? u_prev : v_prev;
    for (int j = 0; j < R::count; j++) m.at[j] = settled ? m.at[j] : moved.at[j];
  }
  const S u = R::charge(p, v_prev, x, m);
  const bool fired = u >= p.threshold;
  moved = m;
  const S v = R::template settle<reset>(p, u, fired, moved);
  const S s = fired ? keep : S(0);
  R::advance(p, Now<S>{s, fired, u, v, v_prev, u_prev, first}, m);
  return {s, u, v};
}

// g_x[t] = gain * g_s[t] * sg(u[t] - th)
template <class S>
FASTSNN_HD S online_gradient(const Lif<S>& p, S g_s, S keep, S sg) {
  return p.gain * ((g_s * keep) * sg);
}

// What else g_u[t] has: nothing. (That of MPDR: core/mpdr.h.)
struct Nothing {
  template <class S>
  FASTSNN_HD S add_to(S g_u, S) const {
    return g_u;
  }
};

// One step back in time: g_x[t] = gain * g_u[t]. g_v and g_m, of v[t] and of the settled slots, become those of t-1.
template <Reset reset, class R, class More, class S>
FASTSNN_HD S step_back(const Lif<S>& p, const More& more, S g_s, S u, S sg, S& g_v, Slots<R, S>& g_m) {
  const S g_u = more.add_to(R::template bptt_gradient<reset>(p, g_s, g_v, g_m, u, sg), u);
  R::carry(p, g_u, g_v, g_m);
  g_v = p.leak * g_u;
  return p.gain * g_u;
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
