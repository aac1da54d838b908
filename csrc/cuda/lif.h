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

template <class F>
void with_reset(const LifParams& p, const F& f) {
  if (Reset(p.reset) == Reset::hard) {
    f(std::integral_constant<Reset, Reset::hard>());
  } else {
    f(std::integral_constant<Reset, Reset::soft>());
  }
}

}  // namespace cuda
}  // namespace fastsnn
