#pragma once

#include "arguments.h"
#include "platform.h"

// EM-PF neurons (equations/empf.md): float spikes s = (m - th)*f, membrane batch norm, parallel neurons.
// Arrays are [T, outer, channels, inner], n = outer*channels*inner neurons; parameters are [T, channels] (one channel:
// shared by all neurons) in the state's type. Sums are double, in `parts` that the caller adds up: [parts, T,
// channels].
namespace fastsnn {

struct EmpfShape {
  int64_t T, n, channels, inner, parts;
  Dtype dtype;

  bool empty() const { return T == 0 || n == 0; }
  template <class Take>
  void numbers(Take&& take) {
    int64_t outer = 0;
    take("parts", parts), take("T", T), take("outer", outer), take("channels", channels), take("inner", inner),
        take("dtype", dtype);
    n = elements({outer, channels, inner});
    take.require(parts >= 1 && parts <= kMostParts, "parts must be in 1..4096");
  }
};

// One step of version II
struct EmpfStep : EmpfShape {
  template <class Take>
  void numbers(Take&& take) {
    EmpfShape::numbers(take);
    take.require(T == 1, "T must be 1");
  }
};

// Versions I and III
struct EmpfForward : EmpfShape {
  const void* x;          // [T, n]
  const void* v;          // [n], v[0], optional
  const void* leak;       // [T, channels]; null: version III, no state
  const void* threshold;  // [T, channels]
  void* spikes;           // [T, n]
  void* v_last;           // [n], optional; v_seq ends with it
  void* v_seq;            // [T, n], optional

  template <class Take>
  void operands(Take&& take) {
    const int64_t all = elements({T, n}), values = elements({T, channels});
    take("x", x, Holds::input, all);
    take("v", v, Holds::state, n, Need::optional);
    take("leak", leak, Holds::state, values, Need::optional);
    take("threshold", threshold, Holds::state, values);
    take("spikes", spikes, Holds::input, all);
    take("v_last", v_last, Holds::state, n, Need::optional);
    take("v_seq", v_seq, Holds::state, all, Need::optional);
  }
};

struct EmpfBackward : EmpfShape {
  const void* g_spikes;   // [T, n]
  const void* v_seq;      // [T, n]; null: version III
  const void* x;          // [T, n], version III
  const void* v;          // [n], v[0], optional
  const void* threshold;  // [T, channels]
  void* g_x;              // [T, n]
  void* g_leak;           // [parts, T, channels], null: version III
  void* g_threshold;      // [parts, T, channels]

  template <class Take>
  void operands(Take&& take) {
    const int64_t all = elements({T, n}), sums = elements({parts, T, channels});
    take("g_spikes", g_spikes, Holds::input, all);
    take("v_seq", v_seq, Holds::state, all, Need::optional);
    take("x", x, Holds::input, all, Need::optional);
    take("v", v, Holds::state, n, Need::optional);
    take("threshold", threshold, Holds::state, elements({T, channels}));
    take("g_x", g_x, Holds::input, all);
    take("g_leak", g_leak, Holds::float64, sums, Need::optional);
    take("g_threshold", g_threshold, Holds::float64, sums);
    take.require(empty() || (v_seq ? bool(g_leak) : bool(x)), "v_seq with g_leak, or x, is needed");
  }
};

struct EmpfPotential : EmpfStep {
  const void *x, *v;  // [n], v optional
  const void* leak;   // [channels]
  void* m;            // [n]
  void* shift;        // [channels], each channel's first potential, so that a large mean does not cancel
  void* sums;         // [parts, channels], of m - shift; null: no statistics
  void* squares;      // [parts, channels], of its squares

  template <class Take>
  void operands(Take&& take) {
    const int64_t all = elements({T, n}), statistics = elements({parts, channels});
    take("x", x, Holds::input, all);
    take("v", v, Holds::state, n, Need::optional);
    take("leak", leak, Holds::state, channels);
    take("m", m, Holds::state, n);
    take("shift", shift, Holds::float64, channels);
    take("sums", sums, Holds::float64, statistics, Need::optional);
    take("squares", squares, Holds::float64, statistics, Need::optional);
    take.require(!sums == !squares, "sums and squares go together");
  }
};

struct EmpfNorm : EmpfStep {
  const void* m;                                        // [n]
  const void *mean, *inverse;                           // [channels], inverse = 1/sqrt(var + eps)
  const void *alpha, *beta, *gamma, *bias, *threshold;  // [channels]

  template <class Take>
  void operands(Take&& take) {
    take("m", m, Holds::state, elements({T, n}));
    take("mean", mean, Holds::state, channels);
    take("inverse", inverse, Holds::state, channels);
    take("alpha", alpha, Holds::state, channels);
    take("beta", beta, Holds::state, channels);
    take("gamma", gamma, Holds::state, channels);
    take("bias", bias, Holds::state, channels);
    take("threshold", threshold, Holds::state, channels);
  }
};

struct EmpfNormForward : EmpfNorm {
  void *spikes, *v_last;  // [n]

  template <class Take>
  void operands(Take&& take) {
    EmpfNorm::operands(take);
    take("spikes", spikes, Holds::input, n);
    take("v_last", v_last, Holds::state, n);
  }
};

struct EmpfNormSums : EmpfNorm {
  const void *g_spikes, *v_last;  // [n]
  void* g_mh;                     // [parts, channels], sum of g_mh
  void* g_mh_xhat;                // [parts, channels], sum of g_mh * xhat

  template <class Take>
  void operands(Take&& take) {
    EmpfNorm::operands(take);
    take("g_spikes", g_spikes, Holds::input, n);
    take("v_last", v_last, Holds::state, n);
    take("g_mh", g_mh, Holds::float64, elements({parts, channels}));
    take("g_mh_xhat", g_mh_xhat, Holds::float64, elements({parts, channels}));
  }
};

struct EmpfNormBackward : EmpfNorm {
  const void *g_spikes, *v_last, *v;  // [n], v[t-1] optional
  const void *pull, *pull_xhat;       // [channels], means of g_n and g_n * xhat; 0 with running statistics
  void* g_x;                          // [n]
  void* g_leak;                       // [parts, channels]

  template <class Take>
  void operands(Take&& take) {
    EmpfNorm::operands(take);
    take("g_spikes", g_spikes, Holds::input, n);
    take("v_last", v_last, Holds::state, n);
    take("v", v, Holds::state, n, Need::optional);
    take("pull", pull, Holds::state, channels);
    take("pull_xhat", pull_xhat, Holds::state, channels);
    take("g_x", g_x, Holds::input, n);
    take("g_leak", g_leak, Holds::float64, elements({parts, channels}));
  }
};

namespace FASTSNN_ISA {

// m[t] = lam_t * v[t-1] + x[t]
template <class S>
FASTSNN_HD S leaky(S leak, S v, S x) {
  return leak * v + x;
}

// v[t] = min(m, th): m - s. Then s[t] = m - v, so that NaN in m or th shows in the spikes.
template <class S>
FASTSNN_HD S clipped(S m, S threshold) {
  return m < threshold ? m : threshold;
}

// g_m = g_s*f, f from v: a neuron that fired is at its threshold
template <class S>
FASTSNN_HD S fired_gradient(S g_s, S v, S threshold) {
  return v >= threshold ? g_s : S(0);
}

template <class S>
FASTSNN_HD S standardized(S m, S mean, S inverse) {
  return (m - mean) * inverse;
}

// mh = alpha*m + beta*n, n = gamma*xhat + b
template <class S>
FASTSNN_HD S membrane_norm(S m, S xhat, S alpha, S beta, S gamma, S bias) {
  return alpha * m + beta * (gamma * xhat + bias);
}

// g_m = alpha*g_mh + gamma/sqrt(var + eps) * (g_n - mean(g_n) - xhat*mean(g_n*xhat)), g_n = beta*g_mh
template <class S>
FASTSNN_HD S norm_gradient(S g_mh, S xhat, S alpha, S beta, S scale, S pull, S pull_xhat) {
  return alpha * g_mh + scale * ((beta * g_mh - pull) - xhat * pull_xhat);
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
