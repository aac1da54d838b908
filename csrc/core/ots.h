#pragma once

#include "arguments.h"
#include "lif.h"
#include "moments.h"

// OTS (equations/ots.md): the neuron fires at th[t], which p.threshold holds.
namespace fastsnn {

// Neurons of one step
struct OtsNeurons {
  int64_t n;
  Dtype dtype;

  bool empty() const { return n == 0; }
  template <class Take>
  void numbers(Take&& take) {
    take("n", n), take("dtype", dtype);
  }
};

struct OtsCharge : OtsNeurons {
  const void *x, *v;  // [n]; v null: v_reset, or 0
  void* u;            // [n]
  double* moments;    // [2]: mean and M2 of u
  double* workspace;  // [blocks, 2] of 256 neurons or more, for a core on a device

  template <class Take>
  void operands(Take&& take) {
    take("x", x, Holds::input, n);
    take("v", v, Holds::state, n, Need::optional);
    take("u", u, Holds::state, n);
    take("moments", moments, Holds::float64, 2);
    take("workspace", workspace, Holds::float64, elements({workspace_blocks(n), 2}), Need::optional);
  }
};

struct OtsFire : OtsNeurons {
  int rule;
  const double* threshold;   // [1]
  const void* u;             // [n]
  const void *trace, *keep;  // [n], optional
  void *spikes, *v;          // [n]
  void* trace_out;           // [n], of a traced rule

  template <class Take>
  void operands(Take&& take) {
    take("threshold", threshold, Holds::float64, 1);
    take("u", u, Holds::state, n);
    take("trace", trace, Holds::state, n, Need::optional);
    take("keep", keep, Holds::state, n, Need::optional);
    take("spikes", spikes, Holds::input, n);
    take("v", v, Holds::state, n);
    take("trace_out", trace_out, Holds::state, n, Need::optional);
    take.require(rule == int(Rule::none) ? !trace_out : rule == int(Rule::ottt) && (empty() || trace_out),
                 "the rule must be without a trace, or ottt with trace_out");
  }
};

struct OtsBackward : OtsNeurons {
  const double* threshold;   // [1]
  const void *u, *g_spikes;  // [n]
  const void* keep;          // [n], optional
  void* g_x;                 // [n]

  template <class Take>
  void operands(Take&& take) {
    take("threshold", threshold, Holds::float64, 1);
    take("u", u, Holds::state, n);
    take("g_spikes", g_spikes, Holds::input, n);
    take("keep", keep, Holds::state, n, Need::optional);
    take("g_x", g_x, Holds::input, n);
  }
};

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
