#pragma once

#include <array>

#include "../core/empf.h"
#include "kernels.h"

// The EM-PF kernels of a Core, bound as bindings/kernels.h binds the others.
namespace fastsnn {
namespace bindings {

// parts, and x's shape [T, outer, channels, inner]
using EmpfSizes = std::array<int64_t, 5>;

inline EmpfShape empf_shape(const EmpfSizes& sizes, int dtype) {
  const auto [parts, T, outer, channels, inner] = sizes;
  require(parts >= 1 && parts <= kMostParts, "parts must be in 1..4096");
  return EmpfShape{T, elements({outer, channels, inner}), channels, inner, parts, dtype_of(dtype)};
}

// one step of version II
inline EmpfShape empf_step(const EmpfSizes& sizes, int dtype) {
  require(sizes[1] == 1, "T must be 1");
  return empf_shape(sizes, dtype);
}

template <class Core>
void bind_empf(py::module_& m) {
  using Execution = typename Core::Execution;
  m.def("empf_forward", [](Execution on, EmpfSizes sizes, int dtype, const py::args& operands) {
    call<Core>("empf_forward", on, EmpfForward{empf_shape(sizes, dtype)}, operands,
               [&](const EmpfForward& k) { Core::empf_forward(k, on); });
  });
  m.def("empf_backward", [](Execution on, EmpfSizes sizes, int dtype, const py::args& operands) {
    const auto fits = [](const EmpfBackward& k) {
      require(k.empty() || (k.v_seq ? bool(k.g_leak) : bool(k.x)), "v_seq with g_leak, or x, is needed");
    };
    call<Core>("empf_backward", on, EmpfBackward{empf_shape(sizes, dtype)}, operands, fits,
               [&](const EmpfBackward& k) { Core::empf_backward(k, on); });
  });
  m.def("empf_potential", [](Execution on, EmpfSizes sizes, int dtype, const py::args& operands) {
    const auto fits = [](const EmpfPotential& k) { require(!k.sums == !k.squares, "sums and squares go together"); };
    call<Core>("empf_potential", on, EmpfPotential{empf_step(sizes, dtype)}, operands, fits,
               [&](const EmpfPotential& k) { Core::empf_potential(k, on); });
  });
  m.def("empf_norm_forward", [](Execution on, EmpfSizes sizes, int dtype, const py::args& operands) {
    call<Core>("empf_norm_forward", on, EmpfNormForward{{empf_step(sizes, dtype)}}, operands,
               [&](const EmpfNormForward& k) { Core::empf_norm_forward(k, on); });
  });
  m.def("empf_norm_sums", [](Execution on, EmpfSizes sizes, int dtype, const py::args& operands) {
    call<Core>("empf_norm_sums", on, EmpfNormSums{{empf_step(sizes, dtype)}}, operands,
               [&](const EmpfNormSums& k) { Core::empf_norm_sums(k, on); });
  });
  m.def("empf_norm_backward", [](Execution on, EmpfSizes sizes, int dtype, const py::args& operands) {
    call<Core>("empf_norm_backward", on, EmpfNormBackward{{empf_step(sizes, dtype)}}, operands,
               [&](const EmpfNormBackward& k) { Core::empf_norm_backward(k, on); });
  });
}

}  // namespace bindings
}  // namespace fastsnn
