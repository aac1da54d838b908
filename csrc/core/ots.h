#pragma once

#include "lif.h"
#include "stats.h"

// OTS (equations/ots.md): the neuron fires at th[t], which p.threshold holds.
namespace fastsnn {
namespace FASTSNN_ISA {

template <class S>
struct Fired {
  S s, v, a;
};

template <Reset reset, class S>
FASTSNN_HD Fired<S> fire(const Lif<S>& p, S u, S keep, S a_prev) {
  const bool fired = u >= p.threshold;
  const S s = fired ? keep : S(0);
  return {s, potential_after<reset>(u, fired, p), p.leak * a_prev + s};
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
