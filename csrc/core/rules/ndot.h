#pragma once

#include "rule.h"

// NDOT (equations/ndot.md): a[t] = e[t-1] * a[t-1] + s[t], e[t] = clamp(v[t]/v[t-1], -lam, lam)
namespace fastsnn {
namespace FASTSNN_ISA {

template <class S>
FASTSNN_HD S clamp(S q, S bound) {
  return q < -bound ? -bound : (q > bound ? bound : q);
}

// e[t]; where r[t-1] = 0, lam with the sign of u[t-1]
template <class S>
FASTSNN_HD S ratio(S r, S r_prev, S u_prev, S leak) {
  const S total = u_prev >= S(0) ? leak : -leak;
  return r_prev == S(0) ? total : clamp(r / r_prev, leak);
}

struct Ndot : Untraced {
  static constexpr Slot slots[] = {kTrace, {"ratio"}};
  static constexpr int count = 2;
  static constexpr bool traced = true, soft_reset = true;

  template <class M, class S>
  static FASTSNN_HD void advance(const Lif<S>& p, const Now<S>& now, M& m) {
    m.at[0] = m.at[1] * m.at[0] + now.s;
    m.at[1] = ratio(now.v, now.first ? S(1) : now.v_prev, now.u_prev, p.leak);
  }
};

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
