#pragma once

#include "operands.h"
#include "platform.h"

// Online mean and variance (equations/osr.md): what OSR, OTS and MPDR take of their elements.
namespace fastsnn {

// Blocks that a core on a device makes of n neurons at most
inline int64_t workspace_blocks(int64_t n) { return n / 256 + (n % 256 != 0); }

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

// Sums over some elements, relative to the first of them
struct RelativeSums {
  double n, origin, sum, squares;

  FASTSNN_HD Moments moments() const { return moments_of(n, origin, sum, squares); }
};

// Moments of the elements of both (Chan, Golub, LeVeque)
FASTSNN_HD Moments merge(Moments a, Moments b) {
  const double n = a.n + b.n;
  const double share = n > 0.0 ? b.n / n : 0.0;
  const double delta = b.mean - a.mean;
  return Moments{n, a.mean + delta * share, a.m2 + b.m2 + delta * delta * (a.n * share)};
}

// Moments of both with the variance around the mean of each
FASTSNN_HD Moments pooled(Moments a, Moments b) {
  const Moments whole = merge(a, b);
  return Moments{whole.n, whole.mean, a.m2 + b.m2};
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
