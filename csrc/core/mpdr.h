#pragma once

#include <limits>

#include "arguments.h"
#include "lif.h"
#include "moments.h"

// Membrane potential distribution regularisation (equations/rptt.md): moments of u[t], and the gradient of what depends
// on them.
namespace fastsnn {

struct MpdrForward : LifForward {
  void* moments;    // [T, 2], double: mean and biased variance of u[t]
  void* workspace;  // [T, blocks, 2], double, of 256 neurons or more, for a core on a device

  template <class Take>
  void operands(Take&& take) {
    LifForward::operands(take);
    take("moments", moments, Holds::float64, elements({T, 2}));
    take("workspace", workspace, Holds::float64, elements({T, workspace_blocks(n), 2}), Need::optional);
  }
};

struct MpdrBackward : LifBackward {
  const void* coefficients;  // [T, 3], double: dL/du[t] = offset + slope*(u[t] - m) as m, offset, slope
  void* g_local;             // [T, n], optional: this part of g_x, which then is not in g_x

  template <class Take>
  void operands(Take&& take) {
    LifBackward::operands(take);
    take("coefficients", coefficients, Holds::float64, elements({T, 3}));
    take("g_local", g_local, Holds::input, elements({T, n}), Need::optional);
  }
};

struct MpdrBackwardBptt : ThroughTime<MpdrBackward> {
  template <class Take>
  void operands(Take&& take) {
    ThroughTime::operands(take);
    take.require(!g_local, "the gradient through time has no local part");
  }
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

// dL/du through the moments
template <class S>
struct MpdrGradient {
  S mean, offset, slope;

  FASTSNN_HD S at(S u) const { return offset + slope * (u - mean); }
  FASTSNN_HD S add_to(S g_u, S u) const { return g_u + at(u); }
};

template <class S>
FASTSNN_HD MpdrGradient<S> mpdr_gradient_at(const MpdrBackward& k, int64_t t) {
  const double* row = static_cast<const double*>(k.coefficients) + 3 * t;
  return {S(row[0]), S(row[1]), S(row[2])};
}

// Its part of g_x
template <class S>
FASTSNN_HD S local_gradient(const Lif<S>& p, const MpdrGradient<S>& q, S u) {
  return p.gain * q.at(u);
}

// g_x = gain * (g_s*sg + dL/du)
template <class S>
FASTSNN_HD S mpdr_online_gradient(const Lif<S>& p, const MpdrGradient<S>& q, S g_s, S keep, S u, S sg) {
  return p.gain * q.add_to((g_s * keep) * sg, u);
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
