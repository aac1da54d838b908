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
  void* room;     // [T, blocks, 2], double, of 256 neurons or more, for a core on a device
};

struct MpdrBackward : LifBackward {
  const void* moments;  // [T, 2]
  void* g_local;        // [T, n], optional: L_M's part of g_x, which then is not in g_x
};

namespace FASTSNN_ISA {

template <class S>
constexpr double kRounding = std::numeric_limits<S>::epsilon();

// A spread below the rounding of u counts as none.
template <class S>
FASTSNN_HD double variance(const Moments& m) {
  const double var = m.m2 / m.n, rounding = m.mean * kRounding<S>;
  return var <= rounding * rounding ? 0.0 : var;
}

// What the pulls of all steps share
struct Target {
  double mean, precision;  // precision = 1/sd*^2
  double share;            // a1/n
  double mu;
};

inline Target target_of(const Mpdr& p, int64_t n) {
  return {p.mean, 1.0 / (p.std * p.std), p.weight / double(n), p.mu};
}

template <class S>
struct Pull {
  S mean, offset, slope;
};

// a1 dL_M/du = offset + slope*(u - m); a layer without spread has no slope
template <class S>
FASTSNN_HD Pull<S> pull_of(const Target& to, double mean, double var) {
  const double slope = var == 0.0 ? 0.0 : (to.precision - 1.0 / var) + 2.0 * to.mu;
  return {S(mean), S(to.share * ((mean - to.mean) * to.precision)), S(to.share * slope)};
}

template <class S>
FASTSNN_HD S pull(const Pull<S>& q, S u) {
  return q.offset + q.slope * (u - q.mean);
}

// L_M's part of g_x
template <class S>
FASTSNN_HD S local_gradient(const Lif<S>& p, const Pull<S>& q, S u) {
  return p.gain * pull(q, u);
}

// g_x = gain * (g_s*sg + a1 dL_M/du)
template <class S>
FASTSNN_HD S pulled_gradient(const Lif<S>& p, const Pull<S>& q, S g_s, S keep, S u, S sg) {
  return p.gain * ((g_s * keep) * sg + pull(q, u));
}

// g_u of BPTT
template <Reset reset, class S>
FASTSNN_HD S pulled_potential_gradient(const Lif<S>& p, const Pull<S>& q, S g_s, S keep, S g_v, S u, S sg) {
  return potential_gradient<reset>(p, g_s, keep, g_v, u, sg) + pull(q, u);
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
