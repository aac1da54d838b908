#pragma once

#include "../platform.h"

// What a neuron rule is, one element and one step at a time: named state slots, parameters, a step and a gradient, as
// fastsnn/rules has them. `Untraced`, the LIF neuron itself, is what others differ from.
namespace fastsnn {

// A value that a neuron keeps from step to step beside its potential. drives: spikes depend on it; it is kept as it is
// before the spike of the potential beside it. every_step: a sequence returns that of every step, else the last; the
// first slot alone can be kept so, the trace.
struct Slot {
  const char* name;
  bool drives = false, every_step = false;
};

constexpr Slot kTrace{"trace", false, true};

namespace FASTSNN_ISA {

enum class Reset : int { soft, hard, count };

template <class S>
struct Lif;  // parameters (core/lif.h)

template <class R, class S>
struct Slots {
  S at[R::count > 0 ? R::count : 1];
};

// What a step has computed when its slots follow: the spike with the dropout mask on it, whether it fired, potentials
// of this step and of the one before it; first: nothing came before
template <class S>
struct Now {
  S s;
  bool fired;
  S u, v, v_prev, u_prev;
  bool first;
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

struct Untraced {
  static constexpr const Slot* slots = nullptr;
  static constexpr int count = 0, parameters = 0;
  static constexpr bool traced = false, soft_reset = false;
  using Dynamics = Untraced;  // the rule with the slots that drive spikes alone

  template <class M, class S>
  static FASTSNN_HD S charge(const Lif<S>& p, S v, S x, const M&) {
    return FASTSNN_ISA::charge(v, x, p);
  }

  // v; slots that drive spikes move on
  template <Reset reset, class M, class S>
  static FASTSNN_HD S settle(const Lif<S>& p, S u, bool fired, M&) {
    return potential_after<reset>(u, fired, p);
  }

  // the other slots move on
  template <class M, class S>
  static FASTSNN_HD void advance(const Lif<S>&, const Now<S>&, M&) {}

  // g_u[t] from the gradients of s[t] (dropout on it), v[t] and the settled slots
  template <Reset reset, class M, class S>
  static FASTSNN_HD S bptt_gradient(const Lif<S>& p, S g_s, S g_v, const M&, S u, S sg) {
    return g_s * sg + g_v * reset_derivative<reset>(u, sg, p);
  }

  // gradients of the settled slots become those of t-1
  template <class M, class S>
  static FASTSNN_HD void carry(const Lif<S>&, S, S, M&) {}
};

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
