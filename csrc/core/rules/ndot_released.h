#pragma once

#include "ndot.h"

// NDOT as released (equations/ndot.md): v is already reset and th*s is subtracted again, s as it leaves the dropout
namespace fastsnn {
namespace FASTSNN_ISA {

template <class S>
FASTSNN_HD bool finite(S q) {
  return q - q == S(0);
}

template <class S>
FASTSNN_HD S ratio_released(S num, S den, S leak) {
  const S q = num / den;
  const bool usable = (den != S(0)) & finite(num) & finite(den) & finite(q);
  return usable ? clamp(q, leak) : leak;
}

struct NdotReleased : Ndot {
  template <class M, class S>
  static FASTSNN_HD void advance(const Lif<S>& p, const Now<S>& now, M& m) {
    const S num = now.fired ? now.v - p.threshold * now.s : now.v;
    m.at[0] = ratio_released(num, S(m.at[1]), p.leak) * m.at[0] + now.s;
    m.at[1] = num;
  }
};

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
