#pragma once

#include <algorithm>
#include <array>
#include <limits>

#include "../core/bits.h"
#include "kernels.h"

// The binary family, for cores that have it.
namespace fastsnn {
namespace bindings {

using Sides = std::array<int64_t, 2>;
using Strides = std::array<int64_t, 4>;

// Sides below 2^31, so that no position that follows from them overflows
inline Plane plane(const Sides& sides, int64_t least) {
  for (const int64_t side : sides) {
    require(side >= least && side <= std::numeric_limits<int32_t>::max(),
            "a plane, kernel, stride, padding or dilation is too small, or 2^31 or more");
  }
  return Plane{sides[0], sides[1]};
}

template <class Core>
void bind_binary(py::module_& m) {
  using Execution = typename Core::Execution;
  m.def("binarize_forward", [](Execution on, int64_t rows, int64_t cols, int dtype, bool scaled,
                               const py::args& operands) {
    const BinarizeForward k{{rows, cols, dtype_of(dtype)}, scaled};
    call<Core>("binarize_forward", on, k, operands, [&](const BinarizeForward& k) { Core::binarize_forward(k, on); });
  });
  m.def("binarize_backward", [](Execution on, int64_t rows, int64_t cols, int dtype, const py::args& operands) {
    const BinarizeBackward k{{rows, cols, dtype_of(dtype)}};
    call<Core>("binarize_backward", on, k, operands,
               [&](const BinarizeBackward& k) { Core::binarize_backward(k, on); });
  });
  m.def("packed_product", [](Execution on, int64_t batch, int64_t channels, int64_t outputs, Sides in, Sides out,
                             Sides kernel, Sides stride, Sides padding, Sides dilation, Strides x_strides,
                             Strides y_strides, int bits, int dtype, const py::args& operands) {
    require(channels >= 1 && (bits == 1 || bits == 2), "channels must be positive and bits 1 or 2");
    PackedProduct k{batch,
                    channels,
                    outputs,
                    plane(in, 0),
                    plane(out, 0),
                    plane(kernel, 1),
                    plane(stride, 1),
                    plane(padding, 0),
                    plane(dilation, 1)};
    std::copy(x_strides.begin(), x_strides.end(), k.x_strides);
    std::copy(y_strides.begin(), y_strides.end(), k.y_strides);
    k.bits = bits;
    k.dtype = dtype_of(dtype);
    require(k.dtype != Dtype::f64, "dtype: packed weights multiply float32, bfloat16 and float16");
    call<Core>("packed_product", on, k, operands, [&](const PackedProduct& k) { Core::packed_product(k, on); });
  });
}

}  // namespace bindings
}  // namespace fastsnn
