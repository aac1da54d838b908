#pragma once

#include "ottt.h"

// Adaptive LIF (fastsnn/rules/alif.py): b[t] = rho * b[t-1] + s[t]; the potential is w[t] = u[t] - beta * b[t-1]. Slot
// `at` is b.
namespace fastsnn {
namespace FASTSNN_ISA {

struct AlifUntraced;

template <int at>
struct Adaptive : Untraced {
  static constexpr int parameters = 2;  // rho, beta
  static constexpr bool soft_reset = true;
  using Dynamics = AlifUntraced;

  template <class M, class S>
  static FASTSNN_HD S charge(const Lif<S>& p, S v, S x, const M& m) {
    return FASTSNN_ISA::charge(v, x, p) - p.of_rule[1] * m.at[at];
  }

  template <Reset reset, class M, class S>
  static FASTSNN_HD S settle(const Lif<S>& p, S u, bool fired, M& m) {
    const S v = potential_after<reset>(u, fired, p) + p.of_rule[1] * m.at[at];
    m.at[at] = p.of_rule[0] * m.at[at] + S(fired);
    return v;
  }

  template <Reset reset, class M, class S>
  static FASTSNN_HD S bptt_gradient(const Lif<S>& p, S g_s, S g_v, const M& g_m, S u, S sg) {
    return (g_s + g_m.at[at]) * sg + g_v * reset_derivative<reset>(u, sg, p);
  }

  template <class M, class S>
  static FASTSNN_HD void carry(const Lif<S>& p, S g_u, S g_v, M& g_m) {
    g_m.at[at] = p.of_rule[0] * g_m.at[at] + p.of_rule[1] * (g_v - g_u);
  }
};

struct AlifUntraced : Adaptive<0> {
  static constexpr Slot slots[] = {{"adaptation", true}};
  static constexpr int count = 1;
};

struct Alif : Adaptive<1> {
  static constexpr Slot slots[] = {kTrace, {"adaptation", true}};
  static constexpr int count = 2;
  static constexpr bool traced = true;

  template <class M, class S>
  static FASTSNN_HD void advance(const Lif<S>& p, const Now<S>& now, M& m) {
    Ottt::advance(p, now, m);
  }
};

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
