#pragma once

#include <array>

#include "../core/empf.h"
#include "kernels.h"

// The EM-PF kernels of a Core, bound as bindings/kernels.h binds the others.
namespace fastsnn {
namespace bindings {

template <class Core>
struct EmpfBindings {
  using Execution = typename Core::Execution;

  // parts, and x's shape [T, outer, channels, inner]
  using Sizes = std::array<int64_t, 5>;

  static EmpfShape shape(const Execution& on, const Sizes& sizes, int dtype) {
    const auto [parts, T, outer, channels, inner] = sizes;
    require(parts >= 1 && T >= 0 && outer >= 0 && channels >= 0 && inner >= 0, "sizes must not be negative");
    require(known<Dtype>(dtype), "dtype: unknown code");
    Core::check(on);
    return EmpfShape{T, outer * channels * inner, channels, inner, parts, Dtype(dtype)};
  }

  template <class... Addresses>
  static void require_all(Addresses... addresses) {
    require((addresses && ...), "pointers must not be null");
  }

  static void forward(Execution on, Sizes sizes, int dtype, Address x, Address v, Address leak, Address threshold,
                      Address spikes, Address v_last, Address v_seq) {
    const EmpfShape k = shape(on, sizes, dtype);
    if (k.T == 0 || k.n == 0) return;
    require_all(x, threshold, spikes);
    py::gil_scoped_release nogil;
    Core::empf_forward(EmpfForward{k, pointer(x), pointer(v), pointer(leak), pointer(threshold), pointer(spikes),
                                   pointer(v_last), pointer(v_seq)},
                       on);
  }

  static void backward(Execution on, Sizes sizes, int dtype, Address g_spikes, Address v_seq, Address x, Address v,
                       Address threshold, Address g_x, Address g_leak, Address g_threshold) {
    const EmpfShape k = shape(on, sizes, dtype);
    if (k.T == 0 || k.n == 0) return;
    require_all(g_spikes, threshold, g_x, g_threshold);
    require(v_seq ? bool(g_leak) : bool(x), "one of v_seq (with g_leak) and x must not be null");
    py::gil_scoped_release nogil;
    Core::empf_backward(EmpfBackward{k, pointer(g_spikes), pointer(v_seq), pointer(x), pointer(v), pointer(threshold),
                                     pointer(g_x), pointer(g_leak), pointer(g_threshold)},
                        on);
  }

  static void potential(Execution on, Sizes sizes, int dtype, Address x, Address v, Address leak, Address m,
                        Address shift, Address sums, Address squares) {
    const EmpfShape k = shape(on, sizes, dtype);
    if (k.n == 0) return;
    require_all(x, leak, m, shift);
    require(bool(sums) == bool(squares), "sums and squares go together");
    py::gil_scoped_release nogil;
    Core::empf_potential(EmpfPotential{k, pointer(x), pointer(v), pointer(leak), pointer(m), pointer(shift),
                                       pointer(sums), pointer(squares)},
                         on);
  }

  // m, mean, inverse, alpha, beta, gamma, bias, threshold
  using Operands = std::array<Address, 8>;

  static EmpfNorm norm(const EmpfShape& k, const Operands& o) {
    for (const Address operand : o) require(operand, "pointers must not be null");
    return EmpfNorm{k,
                    pointer(o[0]),
                    pointer(o[1]),
                    pointer(o[2]),
                    pointer(o[3]),
                    pointer(o[4]),
                    pointer(o[5]),
                    pointer(o[6]),
                    pointer(o[7])};
  }

  static void norm_forward(Execution on, Sizes sizes, int dtype, Operands operands, Address spikes, Address v_last) {
    const EmpfShape k = shape(on, sizes, dtype);
    if (k.n == 0) return;
    require_all(spikes, v_last);
    const EmpfNorm base = norm(k, operands);
    py::gil_scoped_release nogil;
    Core::empf_norm_forward(EmpfNormForward{base, pointer(spikes), pointer(v_last)}, on);
  }

  static void norm_sums(Execution on, Sizes sizes, int dtype, Operands operands, Address g_spikes, Address v_last,
                        Address g_mh, Address g_mh_xhat) {
    const EmpfShape k = shape(on, sizes, dtype);
    if (k.n == 0) return;
    require_all(g_spikes, v_last, g_mh, g_mh_xhat);
    const EmpfNorm base = norm(k, operands);
    py::gil_scoped_release nogil;
    Core::empf_norm_sums(EmpfNormSums{base, pointer(g_spikes), pointer(v_last), pointer(g_mh), pointer(g_mh_xhat)}, on);
  }

  static void norm_backward(Execution on, Sizes sizes, int dtype, Operands operands, Address g_spikes, Address v_last,
                            Address v, Address pull, Address pull_xhat, Address g_x, Address g_leak) {
    const EmpfShape k = shape(on, sizes, dtype);
    if (k.n == 0) return;
    require_all(g_spikes, v_last, pull, pull_xhat, g_x, g_leak);
    const EmpfNorm base = norm(k, operands);
    py::gil_scoped_release nogil;
    Core::empf_norm_backward(EmpfNormBackward{base, pointer(g_spikes), pointer(v_last), pointer(v), pointer(pull),
                                              pointer(pull_xhat), pointer(g_x), pointer(g_leak)},
                             on);
  }
};

template <class Core>
void bind_empf(py::module_& m) {
  using Kernels = EmpfBindings<Core>;
  m.def("empf_forward", &Kernels::forward);
  m.def("empf_backward", &Kernels::backward);
  m.def("empf_potential", &Kernels::potential);
  m.def("empf_norm_forward", &Kernels::norm_forward);
  m.def("empf_norm_sums", &Kernels::norm_sums);
  m.def("empf_norm_backward", &Kernels::norm_backward);
}

}  // namespace bindings
}  // namespace fastsnn
