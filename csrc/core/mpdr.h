#pragma once

#include <limits>

#include "arguments.h"
#include "lif.h"
#include "stats.h"

// Membrane potential distribution regularisation (SPEC 7): moments of u[t] and the gradient of L_M.
namespace fastsnn {

struct Mpdr {
  double mean, std;  // target
  double weight;     // a1
  double mu;         // mu_M
};

struct MpdrForward : LifForward {
  void* moments;  // [T, 2], double: mean and biased variance of u[t]
};

struct MpdrBackward : LifBackward {
  const void* moments;  // [T, 2]
  void* g_local;        // [T, n], optional: L_M's part of g_x, which then is not in g_x
};

namespace FASTSNN_ISA {

// A spread below the rounding of u counts as none.
template <class S>
double variance(const Moments& m) {
  const double var = m.m2 / m.n, rounding = m.mean * double(std::numeric_limits<S>::epsilon());
  return var <= rounding * rounding ? 0.0 : var;
}

template <class S>
struct Pull {
  S mean, offset, slope;
};

// a1 dL_M/du = offset + slope*(u - m); a layer without spread has no slope
template <class S>
Pull<S> pull_of(const Mpdr& p, double mean, double var, double n) {
  const double target = 1.0 / (p.std * p.std);
  const double slope = var == 0.0 ? 0.0 : (target - 1.0 / var) + 2.0 * p.mu;
  return {S(mean), S(p.weight / n * ((mean - p.mean) * target)), S(p.weight / n * slope)};
}

template <class S>
FASTSNN_HD S pull(const Pull<S>& q, S u) {
  return q.offset + q.slope * (u - q.mean);
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
