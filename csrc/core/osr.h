#pragma once

#include <cmath>

#include "arguments.h"
#include "half.h"
#include "moments.h"
#include "platform.h"

// OSR (equations/osr.md): a norm of channels whose statistics move on once a sequence.
namespace fastsnn {

// x is [outer, channels, inner]: [N, C, *] as it lies, or with channels last [N * (*), C, 1]. A core on a device adds
// up a channel in `parts` and keeps their sums in `workspace` [parts, 2, channels], which may be null for one part.
struct Channels {
  int64_t outer, channels, inner, parts;
  Dtype dtype;

  bool empty() const { return outer == 0 || channels == 0 || inner == 0; }
  int64_t n() const { return elements({outer, channels, inner}); }
  int64_t workspace_size() const { return elements({parts, 2, channels}); }
  template <class Take>
  void numbers(Take&& take) {
    take("parts", parts), take("outer", outer), take("channels", channels), take("inner", inner), take("dtype", dtype);
    take.require(parts >= 1 && parts <= kMostParts, "parts must be in 1..4096");
  }
};

// What normalises: y = weight * (x - mean) / sqrt(variance + eps) + bias
struct OsrNorm : Channels {
  Dtype learned, running;  // of weight and bias; of mean and variance
  double eps;
  const void* x;
  const void *weight, *bias;  // [channels]
  void *mean, *variance;      // [channels], written where a sequence ends

  template <class Take>
  void operands(Take&& take) {
    take("x", x, Holds::input, n());
    take("weight", weight, learned, channels);
    take("bias", bias, learned, channels);
    take("running_mean", mean, running, channels);
    take("running_var", variance, running, channels);
  }
};

// A pass in forward and, where statistics are wanted, what becomes of the moments of x. Those of no elements stand for
// a step that strict refuses: NaN or infinity.
struct OsrForward : OsrNorm {
  double limit;  // of the variances' ratio, beyond which the step's own normalise; infinity: never
  bool strict, pooled;
  bool ends;           // the sequence does with this step, and is folded into mean and variance
  double own_share;    // of a sequence in them
  int64_t step;        // of the sequence, from 1
  double* statistics;  // [6, channels], optional: center, factor, scale, mean, m2, inverse
  double* n_all;       // [1]: elements of a channel
  const double *n_before, *mean_before, *m2_before;  // [1], [channels], [channels], optional: of the steps before
  double* total;                                     // [1 + 2 * channels], optional: n, mean, m2 of all steps so far
  const double* share;                               // [1], in place of own_share
  int64_t* folds;                                    // [1]: counts sequences
  const double* refused_before;                      // [1], optional: the first step that was refused, 0 for none
  double* refused;  // [1]: with this step; null: a refused step leaves total, mean, variance and folds as they are
  double* workspace;
  void* y;  // null where a neuron takes it

  bool decides() const { return strict || limit < std::numeric_limits<double>::infinity(); }

  template <class Take>
  void numbers(Take&& take) {
    Channels::numbers(take);
    take("learned", learned), take("running", running), take("eps", eps), take("limit", limit), take("strict", strict),
        take("pooled", pooled), take("ends", ends), take("own_share", own_share), take("step", step);
  }
  template <class Take>
  void step_operands(Take&& take) {
    OsrNorm::operands(take);
    take("statistics", statistics, Holds::float64, elements({6, channels}), Need::optional);
    take("n", n_all, Holds::float64, 1, Need::optional);
    take("n_before", n_before, Holds::float64, 1, Need::optional);
    take("mean_before", mean_before, Holds::float64, channels, Need::optional);
    take("m2_before", m2_before, Holds::float64, channels, Need::optional);
    take("total", total, Holds::float64, channels < kNever / 2 ? 2 * channels + 1 : kNever, Need::optional);
    take("share", share, Holds::float64, 1, Need::optional);
    take("folds", folds, Holds::int64, 1, Need::optional);
    take("refused_before", refused_before, Holds::float64, 1, Need::optional);
    take("refused", refused, Holds::float64, 1, Need::optional);
    take("workspace", workspace, Holds::float64, workspace_size(), Need::optional);
    take.require(!statistics == !n_all, "statistics and n are wanted together");
    take.require(statistics || !(total || decides()), "a step needs statistics");
    take.require(!n_before == !mean_before && !n_before == !m2_before, "n, mean and m2 come together");
    take.require(!ends || (total && folds), "the end of a sequence needs total and folds");
  }
  template <class Take>
  void operands(Take&& take) {
    step_operands(take);
    take("y", y, Holds::input, n());
  }
};

// The same with one step of the neuron on y, which has no memory
struct OsrLifForward : OsrForward {
  int rule;
  bool first, potential_is_v;
  const void *potential, *slots[kMostSlots], *keep;  // [n], as LifForward's
  void *spikes, *u, *slots_out[kMostSlots];          // [n]

  template <class Take>
  void numbers(Take&& take) {
    OsrForward::numbers(take);
    take("first", first), take("potential_is_v", potential_is_v);
  }
  template <class Take>
  void operands(Take&& take) {
    step_operands(take);
    take("potential", potential, Holds::state, n(), Need::optional);
    take("slots", slots, SlotsTaken::all(rule, 1, n()));
    take("keep", keep, Holds::state, n(), Need::optional);
    take("spikes", spikes, Holds::input, n());
    take("u", u, Holds::state, n());
    take("slots_out", slots_out, SlotsTaken::all(rule, 1, n()));
    neuron().require_trace(take);
  }

  LifForward neuron() const {
    LifForward lif{1, n(), dtype, rule, first, potential_is_v, nullptr, potential};
    lif.keep = keep, lif.spikes = spikes, lif.u_last = u;
    for (int j = 0; j < kMostSlots; j++) lif.slots[j] = slots[j], lif.slots_out[j] = slots_out[j];
    return lif;
  }
};

// The same where OTS (ots.h) then fires: y charges the neuron, whose u and its moments are left
struct OsrCharge : OsrForward {
  const void* v;        // [n]; null: v_reset, or 0
  void* u;              // [n]
  double* u_moments;    // [2]: mean and M2 of u
  double* u_workspace;  // as workspace

  template <class Take>
  void operands(Take&& take) {
    step_operands(take);
    take("v", v, Holds::state, n(), Need::optional);
    take("u", u, Holds::state, n());
    take("u_moments", u_moments, Holds::float64, 2);
    take("u_workspace", u_workspace, Holds::float64, workspace_size(), Need::optional);
  }
};

struct OsrReduce : Channels {
  Dtype learned;
  const void* x;
  const double* statistics;  // [6, channels], as in forward
  const double* n_all;       // [1]
  double* means;             // [2, channels]: of g, of g*xh
  void *g_weight, *g_bias;   // [channels]
  double* workspace;
  const void* g;            // null where a neuron gives it
  const double* threshold;  // [1], of that neuron; null: its own

  template <class Take>
  void numbers(Take&& take) {
    Channels::numbers(take);
    take("learned", learned);
  }
  template <class Take>
  void sums(Take&& take) {
    take("x", x, Holds::input, n());
    take("statistics", statistics, Holds::float64, elements({6, channels}));
    take("n", n_all, Holds::float64, 1);
    take("means", means, Holds::float64, elements({2, channels}));
    take("g_weight", g_weight, learned, channels);
    take("g_bias", g_bias, learned, channels);
    take("workspace", workspace, Holds::float64, workspace_size(), Need::optional);
  }
  template <class Take>
  void operands(Take&& take) {
    sums(take);
    take("g", g, Holds::input, n());
  }
};

// The same with g_y of the neuron, which is written
struct OsrLifReduce : OsrReduce {
  const void *g_spikes, *keep, *u;  // [n], keep optional
  void* g_y;                        // [n]

  template <class Take>
  void operands(Take&& take) {
    sums(take);
    take("g_spikes", g_spikes, Holds::input, n());
    take("keep", keep, Holds::state, n(), Need::optional);
    take("u", u, Holds::state, n());
    take("threshold", threshold, Holds::float64, 1, Need::optional);
    take("g_y", g_y, Holds::input, n());
  }

  LifBackward neuron() const {
    LifBackward lif{1, n(), dtype, int(Rule::none), false, g_spikes, keep, u};
    lif.g_x = g_y;
    return lif;
  }
};

struct OsrGradient : Channels {
  const void *x, *g;
  const double* statistics;  // [6, channels]
  const double* means;       // [2, channels]: mean(g), mean(g*xh)
  void* g_x;                 // may be g

  template <class Take>
  void operands(Take&& take) {
    take("x", x, Holds::input, n());
    take("g", g, Holds::input, n());
    take("statistics", statistics, Holds::float64, elements({6, channels}));
    take("means", means, Holds::float64, elements({2, channels}));
    take("g_x", g_x, Holds::input, n());
  }
};

namespace FASTSNN_ISA {

// Element i of a vector whose type is known at run time
FASTSNN_HD double element(const void* vector, Dtype dtype, int64_t i) {
  switch (dtype) {
    case Dtype::f32:
      return static_cast<const float*>(vector)[i];
    case Dtype::f64:
      return static_cast<const double*>(vector)[i];
    case Dtype::bf16:
      return to_float(static_cast<const BFloat16*>(vector)[i]);
    default:
      return to_float(static_cast<const Half*>(vector)[i]);
  }
}

// As such a vector holds it
FASTSNN_HD double rounded(Dtype dtype, double value) {
  switch (dtype) {
    case Dtype::f32:
      return float(value);
    case Dtype::f64:
      return value;
    case Dtype::bf16:
      return to_float(to_bfloat16(float(value)));
    default:
      return to_float(to_half(float(value)));
  }
}

FASTSNN_HD void put(void* vector, Dtype dtype, int64_t i, double value) {
  switch (dtype) {
    case Dtype::f32:
      static_cast<float*>(vector)[i] = float(value);
      return;
    case Dtype::f64:
      static_cast<double*>(vector)[i] = value;
      return;
    case Dtype::bf16:
      static_cast<BFloat16*>(vector)[i] = to_bfloat16(float(value));
      return;
    default:
      static_cast<Half*>(vector)[i] = to_half(float(value));
  }
}

FASTSNN_HD double inverse_root(double variance, double eps) { return 1.0 / sqrt(variance + eps); }

FASTSNN_HD bool is_finite(double value) { return value - value == 0.0; }

FASTSNN_HD double variance_of(double m2, double n) { return m2 / (n > 1.0 ? n : 1.0); }

// Rows of `statistics`
enum class Row : int { center, factor, scale, mean, m2, inverse };

template <class K>
FASTSNN_HD auto row_of(const K& k, Row which) {
  return k.statistics + int(which) * k.channels;
}

// The affine map of one channel
struct Affine {
  double center, scale, factor;
};

FASTSNN_HD Affine affine_of(const OsrNorm& k, int64_t c, double mean, double variance) {
  const double scale = inverse_root(variance, k.eps);
  return Affine{mean, scale, element(k.weight, k.learned, c) * scale};
}

// By the step's own mean and M2, or by the running statistics
FASTSNN_HD Affine affine_of(const OsrForward& k, int64_t c, bool own) {
  if (own)
    return affine_of(k, c, row_of(k, Row::mean)[c], variance_of(row_of(k, Row::m2)[c], double(k.outer * k.inner)));
  return affine_of(k, c, element(k.mean, k.running, c), element(k.variance, k.running, c));
}

// What a step of these moments means for the layer
struct Verdict {
  bool exceeded, refused;
};

FASTSNN_HD Verdict verdict_of(const OsrForward& k, int64_t c, const Moments& moments) {
  const double running = element(k.variance, k.running, c);
  const double ratio = (variance_of(moments.m2, moments.n) + k.eps) / (running + k.eps);
  return Verdict{ratio > k.limit || 1.0 / ratio > k.limit, k.strict && !is_finite(moments.mean + moments.m2)};
}

// A channel's mean and variance after a sequence
FASTSNN_HD void fold(const OsrForward& k, int64_t c, const Moments& total) {
  const double weight = (k.share ? *k.share : k.own_share) * (total.n > 0.0 ? 1.0 : 0.0);
  const double mean = element(k.mean, k.running, c), variance = element(k.variance, k.running, c);
  const double news = variance_of(total.m2, total.n) - variance;
  put(k.mean, k.running, c, mean + rounded(k.running, weight * (total.mean - mean)));
  put(k.variance, k.running, c, variance + rounded(k.running, weight * news));
  if (c == 0) *k.folds += 1;
}

// A channel's moments of the steps so far, with `own`, those of this step
FASTSNN_HD Moments so_far(const OsrForward& k, int64_t c, const Moments& own) {
  if (!k.n_before) return own;
  const Moments before{*k.n_before, k.mean_before[c], k.m2_before[c]};
  return k.pooled ? pooled(before, own) : merge(before, own);
}

// All that becomes of a channel's moments, whose mean and m2 are among the statistics, once it is known what normalised
FASTSNN_HD void settle(const OsrForward& k, int64_t c, const Verdict& verdict) {
  const Affine affine = affine_of(k, c, verdict.exceeded);
  double *const mean = row_of(k, Row::mean), *const m2 = row_of(k, Row::m2);
  if (verdict.refused) mean[c] = 0.0, m2[c] = 0.0;
  const Moments own{verdict.refused ? 0.0 : double(k.outer * k.inner), mean[c], m2[c]};
  row_of(k, Row::center)[c] = affine.center;
  row_of(k, Row::factor)[c] = affine.factor;
  row_of(k, Row::scale)[c] = affine.scale;
  row_of(k, Row::inverse)[c] = inverse_root(variance_of(own.m2, own.n), k.eps);
  if (c == 0) *k.n_all = own.n;
  if (!k.total || (verdict.refused && !k.refused)) return;
  const Moments all = so_far(k, c, own);
  k.total[1 + c] = all.mean;
  k.total[1 + k.channels + c] = all.m2;
  if (k.ends) fold(k, c, all);
  if (c > 0) return;
  k.total[0] = all.n;
  const double earlier = k.refused_before ? *k.refused_before : 0.0;
  if (k.refused) *k.refused = earlier == 0.0 && verdict.refused ? double(k.step) : earlier;
}

// A channel's gradients, from the sums of g and of g*xh: means, and sum g*(x - center)*scale with
// x - center = xh/inverse + (mean - center)
FASTSNN_HD void settle(const OsrReduce& k, int64_t c, double sum, double sum_xh) {
  const double n = *k.n_all > 1.0 ? *k.n_all : 1.0;
  const double offset = row_of(k, Row::mean)[c] - row_of(k, Row::center)[c];
  k.means[c] = sum / n;
  k.means[k.channels + c] = sum_xh / n;
  put(k.g_weight, k.learned, c, row_of(k, Row::scale)[c] * (sum_xh / row_of(k, Row::inverse)[c] + sum * offset));
  put(k.g_bias, k.learned, c, sum);
}

template <class S>
FASTSNN_HD S normalize(S x, S center, S factor, S shift) {
  return (x - center) * factor + shift;
}

FASTSNN_HD double normal(double x, double mean, double inverse) { return (x - mean) * inverse; }

// g_x = factor * (g - mean(g) - xh * mean(g*xh))
FASTSNN_HD double osr_gradient(double g, double xh, double factor, double mean_g, double mean_g_xh) {
  return factor * (g - mean_g - xh * mean_g_xh);
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
