#pragma once

#include "arguments.h"
#include "platform.h"
#include "surrogate.h"
#include "trace.h"

// The LIF neuron, one element and one step at a time (equations/lif.md).
namespace fastsnn {
namespace FASTSNN_ISA {

enum class Reset : int { soft, hard, count };

template <class S>
struct Lif {
  S leak;        // lam = 1 - 1/tau
  S gain;        // 1, or 1/tau with decay_input
  S bias;        // v_reset/tau
  S threshold;   // th
  S v_reset;     // r
  S reset_grad;  // soft: th, hard: 1; 0 with detach_reset
  S height, slope;
};

template <class S>
Lif<S> lif_of(const LifParams& p) {
  return Lif<S>{S(p.leak),    S(p.gain),       S(p.bias),   S(p.threshold),
                S(p.v_reset), S(p.reset_grad), S(p.height), S(p.slope)};
}

// u[t] = lam * v[t-1] + gain * x[t] + bias
template <class S>
FASTSNN_HD S charge(S v, S x, const Lif<S>& p) {
  return (p.leak * v + p.gain * x) + p.bias;
}

template <Reset reset, class S>
FASTSNN_HD S potential_after(S u, bool fired, const Lif<S>& p) {
  const S after = reset == Reset::soft ? u - p.threshold : p.v_reset;
  return fired ? after : u;
}

template <class S>
struct Step {
  S s, u, v;
  S a, e;  // trace and ratio, of the rules that have one
};

// One neuron, one step. u_prev is u[t-1], or v[t-1] with threshold_prev = NaN, which nothing reaches; keep is the
// dropout mask.
template <Reset reset, Trace trace, class S>
FASTSNN_HD Step<S> advance(const Lif<S>& p, S x, S keep, S u_prev, S a_prev, S e_prev, S threshold_prev, bool first) {
  const S v_prev = potential_after<reset>(u_prev, u_prev >= threshold_prev, p);
  Step<S> o{};
  o.u = charge(v_prev, x, p);
  const bool fired = o.u >= p.threshold;
  o.v = potential_after<reset>(o.u, fired, p);
  o.s = fired ? keep : S(0);
  if constexpr (trace == Trace::ottt) {
    o.a = p.leak * a_prev + o.s;
  } else if constexpr (trace == Trace::ndot) {
    o.a = e_prev * a_prev + o.s;
    o.e = ratio(o.v, first ? S(1) : v_prev, u_prev, p.leak);
  } else if constexpr (trace == Trace::ndot_released) {
    const S num = fired ? o.v - p.threshold * o.s : o.v;
    o.a = ratio_released(num, e_prev, p.leak) * a_prev + o.s;
    o.e = num;
  }
  return o;
}

// g_x[t] = gain * g_s[t] * sg(u[t] - th)
template <class S>
FASTSNN_HD S online_gradient(const Lif<S>& p, S g_s, S keep, S sg) {
  return p.gain * ((g_s * keep) * sg);
}

// dv/du of the reset, BPTT only
template <Reset reset, class S>
FASTSNN_HD S reset_derivative(S u, S sg, const Lif<S>& p) {
  if constexpr (reset == Reset::soft) {
    return S(1) - p.reset_grad * sg;
  } else {
    const S kept = u >= p.threshold ? S(0) : S(1);
    return kept + p.reset_grad * ((p.v_reset - u) * sg);
  }
}

// g_u = g_s*sg + g_v*dv/du ; g_x = gain*g_u ; g_v[t-1] = lam*g_u
template <Reset reset, class S>
FASTSNN_HD S potential_gradient(const Lif<S>& p, S g_s, S keep, S g_v, S u, S sg) {
  return (g_s * keep) * sg + g_v * reset_derivative<reset>(u, sg, p);
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
