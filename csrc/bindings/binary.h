#pragma once

#include <array>

#include "../core/bits.h"
#include "kernels.h"

// The binary family, for cores that have it.
namespace fastsnn {
namespace bindings {

template <class Core>
struct BinaryBindings {
  using Execution = typename Core::Execution;
  using Sides = std::array<int64_t, 2>;
  using Strides = std::array<int64_t, 4>;

  static void binarize_forward(Execution on, int64_t rows, int64_t cols, int dtype, bool scaled, Address weight,
                               Address scale, Address out) {
    Bindings<Core>::check(on, rows, cols, dtype);
    if (rows == 0 || cols == 0) return;
    require(weight && scale && out, "pointers must not be null");
    py::gil_scoped_release nogil;
    Core::binarize_forward(
        BinarizeForward{{rows, cols, Dtype(dtype), pointer(weight)}, scaled, pointer(scale), pointer(out)}, on);
  }

  static void binarize_backward(Execution on, int64_t rows, int64_t cols, int dtype, Address weight, Address g_out,
                                Address g_weight) {
    Bindings<Core>::check(on, rows, cols, dtype);
    if (rows == 0 || cols == 0) return;
    require(weight && g_out && g_weight, "pointers must not be null");
    py::gil_scoped_release nogil;
    Core::binarize_backward(
        BinarizeBackward{{rows, cols, Dtype(dtype), pointer(weight)}, pointer(g_out), pointer(g_weight)}, on);
  }

  static Plane plane(const Sides& sides, int64_t least) {
    require(sides[0] >= least && sides[1] >= least, "a plane, kernel, stride, padding or dilation is too small");
    return Plane{sides[0], sides[1]};
  }

  static void packed_product(Execution on, int64_t batch, int64_t channels, int64_t outputs, Sides in, Sides out,
                             Sides kernel, Sides stride, Sides padding, Sides dilation, Strides x_strides,
                             Strides y_strides, int bits, int dtype, Address x, Address words, Address scale,
                             Address bias, Address y) {
    Bindings<Core>::check(on, batch, outputs, dtype);
    require(channels >= 1 && (bits == 1 || bits == 2), "channels must be positive and bits 1 or 2");
    PackedProduct k{};
    k.batch = batch;
    k.channels = channels;
    k.outputs = outputs;
    k.in = plane(in, 0);
    k.out = plane(out, 0);
    k.kernel = plane(kernel, 1);
    k.stride = plane(stride, 1);
    k.padding = plane(padding, 0);
    k.dilation = plane(dilation, 1);
    std::copy(x_strides.begin(), x_strides.end(), k.x_strides);
    std::copy(y_strides.begin(), y_strides.end(), k.y_strides);
    k.bits = bits;
    k.dtype = Dtype(dtype);
    k.x = pointer(x);
    k.words = static_cast<const uint32_t*>(pointer(words));
    k.scale = static_cast<const float*>(pointer(scale));
    k.bias = static_cast<const float*>(pointer(bias));
    k.y = pointer(y);
    if (batch == 0 || outputs == 0 || k.out.height == 0 || k.out.width == 0) return;
    require((k.x || k.in.height * k.in.width == 0) && k.words && k.y, "pointers must not be null");
    py::gil_scoped_release nogil;
    Core::packed_product(k, on);
  }
};

template <class Core>
void bind_binary(py::module_& m) {
  m.def("binarize_forward", &BinaryBindings<Core>::binarize_forward);
  m.def("binarize_backward", &BinaryBindings<Core>::binarize_backward);
  m.def("packed_product", &BinaryBindings<Core>::packed_product);
}

}  // namespace bindings
}  // namespace fastsnn
