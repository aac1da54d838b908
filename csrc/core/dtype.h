#pragma once

#include "arguments.h"
#include "platform.h"

namespace fastsnn {
namespace FASTSNN_ISA {

// What the state of an input of type T is kept in
template <class T>
struct StateOf {
  using type = float;
};
template <>
struct StateOf<double> {
  using type = double;
};

// Calls f with a value of the dtype's C++ type; every core has its own types of 16 bits.
template <class Half, class BFloat16, class F>
void with_type(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::f32:
      return f(float{});
    case Dtype::f64:
      return f(double{});
    case Dtype::bf16:
      return f(BFloat16{});
    default:
      return f(Half{});
  }
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
