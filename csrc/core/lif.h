#pragma once

#include "platform.h"
#include "surrogate.h"

// The LIF neuron, one element and one step at a time (SPEC 1).
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

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
