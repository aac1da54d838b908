#pragma once

#include "lif.h"

// Surrogate derivatives of a thread's neurons; the shape is chosen at run time: one uniform branch a step.
namespace fastsnn {
namespace cuda {

template <Surrogate shape, int V, class S>
__device__ __forceinline__ void surrogates(const Lif<S>& p, const S (&u)[V], S (&sg)[V]) {
#pragma unroll
  for (int j = 0; j < V; j++) sg[j] = surrogate<shape>(u[j] - p.threshold, p.height, p.slope);
}

template <int V, class S>
__device__ __forceinline__ void surrogates(int shape, const Lif<S>& p, const S (&u)[V], S (&sg)[V]) {
  switch (Surrogate(shape)) {
    case Surrogate::sigmoid:
      return surrogates<Surrogate::sigmoid>(p, u, sg);
    case Surrogate::triangle:
      return surrogates<Surrogate::triangle>(p, u, sg);
    case Surrogate::rectangle:
      return surrogates<Surrogate::rectangle>(p, u, sg);
    case Surrogate::rect_open:
      return surrogates<Surrogate::rect_open>(p, u, sg);
    case Surrogate::atan:
      return surrogates<Surrogate::atan>(p, u, sg);
    case Surrogate::piecewise_exp:
      return surrogates<Surrogate::piecewise_exp>(p, u, sg);
    case Surrogate::soft_sign:
      return surrogates<Surrogate::soft_sign>(p, u, sg);
    default:
      return surrogates<Surrogate::erf>(p, u, sg);
  }
}

}  // namespace cuda
}  // namespace fastsnn
