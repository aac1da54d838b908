#pragma once

#include "arguments.h"
#include "platform.h"

// Online mean and variance, and what is built on them: OSR (equations/osr.md) and OTS (equations/ots.md).
namespace fastsnn {

// x is [outer, channels, inner]: [N, C, *] as it lies, or with channels last [N * (*), C, 1]. A core on a device adds
// up a channel in `parts` and keeps their sums in `room` [parts, 2, channels], which may be null for one part.
struct Channels {
  int64_t outer, channels, inner, parts;
  Dtype dtype;

  bool empty() const { return outer == 0 || channels == 0 || inner == 0; }
  int64_t n() const { return elements({outer, channels, inner}); }
  int64_t room_size() const { return elements({parts, 2, channels}); }
};

// Blocks that a core on a device makes of n neurons at most
inline int64_t room_blocks(int64_t n) { return n / 256 + (n % 256 != 0); }

struct OsrForward : Channels {
  const void* x;
  const double *center, *factor, *shift;  // [channels]: y = (x - center) * factor + shift
  void* y;                                // null where a neuron takes it
  double *mean, *m2;                      // [channels], optional: moments of x
  double* room;

  template <class Take>
  void normalisation(Take&& take) {
    take("x", x, Holds::input, n());
    take("center", center, Holds::float64, channels);
    take("factor", factor, Holds::float64, channels);
    take("shift", shift, Holds::float64, channels);
  }
  template <class Take>
  void moments(Take&& take) {
    take("mean", mean, Holds::float64, channels, Need::optional);
    take("m2", m2, Holds::float64, channels, Need::optional);
    take("room", room, Holds::float64, room_size(), Need::optional);
  }
  template <class Take>
  void operands(Take&& take) {
    normalisation(take);
    take("y", y, Holds::input, n());
    moments(take);
  }
};

// The same with one step of the neuron on y, which has no memory
struct OsrLifForward : OsrForward {
  int rule;
  bool first, potential_is_v;
  const void *potential, *slots[kMostSlots], *keep;  // [n], as LifForward's
  void *spikes, *u, *slots_out[kMostSlots];          // [n]

  template <class Take>
  void operands(Take&& take) {
    normalisation(take);
    moments(take);
    take("potential", potential, Holds::state, n(), Need::optional);
    take_slots(take, rule, slots, 1, n());
    take("keep", keep, Holds::state, n(), Need::optional);
    take("spikes", spikes, Holds::input, n());
    take("u", u, Holds::state, n());
    take_slots(take, rule, slots_out, 1, n());
  }

  LifForward neuron() const {
    LifForward lif{1, n(), dtype, rule, first, potential_is_v, nullptr, potential};
    lif.keep = keep, lif.spikes = spikes, lif.u_last = u;
    for (int j = 0; j < kMostSlots; j++) lif.slots[j] = slots[j], lif.slots_out[j] = slots_out[j];
    return lif;
  }
};

struct OsrReduce : Channels {
  const void *x, *g;             // g null where a neuron gives it
  const double *mean, *inverse;  // [channels]
  double* sums;                  // [2, channels]: sum g, sum g*xh
  double* room;

  template <class Take>
  void operands(Take&& take) {
    take("x", x, Holds::input, n());
    take("g", g, Holds::input, n());
    statistics(take);
  }
  template <class Take>
  void statistics(Take&& take) {
    take("mean", mean, Holds::float64, channels);
    take("inverse", inverse, Holds::float64, channels);
    take("sums", sums, Holds::float64, elements({2, channels}));
    take("room", room, Holds::float64, room_size(), Need::optional);
  }
};

// The same with g_y of the neuron, which is written
struct OsrLifReduce : OsrReduce {
  const void *g_spikes, *keep, *u;  // [n], keep optional
  void* g_y;                        // [n]

  template <class Take>
  void operands(Take&& take) {
    take("x", x, Holds::input, n());
    statistics(take);
    take("g_spikes", g_spikes, Holds::input, n());
    take("keep", keep, Holds::state, n(), Need::optional);
    take("u", u, Holds::state, n());
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
  const double *mean, *inverse, *factor;  // [channels]
  const double* means;                    // [2, channels]: mean(g), mean(g*xh)
  void* g_x;                              // may be g

  template <class Take>
  void operands(Take&& take) {
    take("x", x, Holds::input, n());
    take("g", g, Holds::input, n());
    take("mean", mean, Holds::float64, channels);
    take("inverse", inverse, Holds::float64, channels);
    take("factor", factor, Holds::float64, channels);
    take("means", means, Holds::float64, elements({2, channels}));
    take("g_x", g_x, Holds::input, n());
  }
};

struct OtsCharge {
  int64_t n;
  Dtype dtype;
  const void *x, *v;  // [n]; v null: v_reset, or 0
  void* u;            // [n]
  double* moments;    // [2]: mean and M2 of u
  double* room;       // [blocks, 2] of 256 neurons or more, for a core on a device

  bool empty() const { return n == 0; }
  template <class Take>
  void operands(Take&& take) {
    take("x", x, Holds::input, n);
    take("v", v, Holds::state, n, Need::optional);
    take("u", u, Holds::state, n);
    take("moments", moments, Holds::float64, 2);
    take("room", room, Holds::float64, elements({room_blocks(n), 2}), Need::optional);
  }
};

struct OtsFire {
  int64_t n;
  Dtype dtype;
  const double* threshold;   // [1]
  const void* u;             // [n]
  const void *trace, *keep;  // [n], optional
  void *spikes, *v;          // [n]
  void* trace_out;           // [n], of a traced rule

  bool empty() const { return n == 0; }
  template <class Take>
  void operands(Take&& take) {
    take("threshold", threshold, Holds::float64, 1);
    take("u", u, Holds::state, n);
    take("trace", trace, Holds::state, n, Need::optional);
    take("keep", keep, Holds::state, n, Need::optional);
    take("spikes", spikes, Holds::input, n);
    take("v", v, Holds::state, n);
    take("trace_out", trace_out, Holds::state, n, Need::optional);
  }
};

struct OtsBackward {
  int64_t n;
  Dtype dtype;
  const double* threshold;   // [1]
  const void *u, *g_spikes;  // [n]
  const void* keep;          // [n], optional
  void* g_x;                 // [n]

  bool empty() const { return n == 0; }
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
