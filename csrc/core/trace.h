#pragma once

#include "platform.h"

// Eligibility traces of the neuron that fired: OTTT (equations/ottt.md), NDOT and NDOT as released (equations/ndot.md).
namespace fastsnn {
namespace FASTSNN_ISA {

enum class Trace : int { none, ottt, ndot, ndot_released, count };

FASTSNN_HD constexpr bool has_ratio(Trace trace) { return trace == Trace::ndot || trace == Trace::ndot_released; }

template <class S>
FASTSNN_HD S clamp(S q, S bound) {
  return q < -bound ? -bound : (q > bound ? bound : q);
}

template <class S>
FASTSNN_HD bool finite(S q) {
  return q - q == S(0);
}

// e[t] of `ndot`
template <class S>
FASTSNN_HD S ratio(S r, S r_prev, S u_prev, S leak) {
  const S total = u_prev >= S(0) ? leak : -leak;
  return r_prev == S(0) ? total : clamp(r / r_prev, leak);
}

// e[t] of `ndot_released`: v is already reset and th*s is subtracted again, s as it leaves the dropout
template <class S>
FASTSNN_HD S ratio_released(S num, S den, S leak) {
  const S q = num / den;
  const bool usable = (den != S(0)) & finite(num) & finite(den) & finite(q);
  return usable ? clamp(q, leak) : leak;
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
