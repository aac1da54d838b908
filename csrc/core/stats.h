#pragma once

#include "arguments.h"
#include "platform.h"

// Online mean and variance, and what is built on them: OSR (SPEC 5) and OTS (SPEC 6).
namespace fastsnn {

// x is [outer, channels, inner]: [N, C, *] as it lies, or with channels last [N * (*), C, 1]. A core on a device adds
// up a channel in `parts` and keeps their sums in `room` [parts, 2, channels], which may be null for one part.
struct Channels {
  int64_t outer, channels, inner, parts;
  Dtype dtype;
};

struct OsrForward : Channels {
  const void* x;
  const double *center, *factor, *shift;  // [channels]: y = (x - center) * factor + shift
  void* y;                                // null where a neuron takes it
  double *mean, *m2;                      // [channels], optional: moments of x
  double* room;
};

struct OsrReduce : Channels {
  const void *x, *g;             // g null where a neuron gives it
  const double *mean, *inverse;  // [channels]
  double* sums;                  // [2, channels]: sum g, sum g*xh
  double* room;
};

struct OsrGradient : Channels {
  const void *x, *g;
  const double *mean, *inverse, *factor;  // [channels]
  const double* means;                    // [2, channels]: mean(g), mean(g*xh)
  void* g_x;                              // may be g
};

struct OtsCharge {
  int64_t n;
  Dtype dtype;
  const void *x, *v;  // [n]; v null: v_reset, or 0
  void* u;            // [n]
  double* moments;    // [2]: mean and M2 of u
  double* room;       // [blocks, 2] of 256 neurons or more, for a core on a device
};

struct OtsFire {
  int64_t n;
  Dtype dtype;
  const double* threshold;   // [1]
  const void* u;             // [n]
  const void *trace, *keep;  // [n], optional
  void *spikes, *v;          // [n]
  void* trace_out;           // [n], of a traced rule
};

struct OtsBackward {
  int64_t n;
  Dtype dtype;
  const double* threshold;   // [1]
  const void *u, *g_spikes;  // [n]
  const void* keep;          // [n], optional
  void* g_x;                 // [n]
};

namespace FASTSNN_ISA {

// How many elements, their mean, and the sum of squared deviations from it
struct Moments {
  double n, mean, m2;
};

// From sums of x - origin and of its square: cancels only where origin is far outside of the elements
FASTSNN_HD Moments moments_of(double n, double origin, double sum, double squares) {
  const double shift = n > 0.0 ? sum / n : 0.0;
  const double m2 = squares - sum * shift;
  return Moments{n, origin + shift, m2 < 0.0 ? 0.0 : m2};
}

// Moments of the elements of both (Chan, Golub, LeVeque)
FASTSNN_HD Moments merge(Moments a, Moments b) {
  const double n = a.n + b.n;
  const double share = n > 0.0 ? b.n / n : 0.0;
  const double delta = b.mean - a.mean;
  return Moments{n, a.mean + delta * share, a.m2 + b.m2 + delta * delta * (a.n * share)};
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
