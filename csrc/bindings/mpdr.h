#pragma once

#include "../core/mpdr.h"
#include "kernels.h"

// Binds LIF with MPDR of a core that has it: the arguments of the plain kernels and what MPDR adds.
namespace fastsnn {
namespace bindings {

template <class Core>
void bind_mpdr(py::module_& m) {
  using Execution = typename Core::Execution;
  m.def("mpdr_forward", [](const LifParams& p, Execution on, int64_t T, int64_t n, int dtype, bool first,
                           bool potential_is_v, const py::args& operands) {
    const MpdrForward k{{T, n, dtype_of(dtype), p.rule, first, potential_is_v}};
    call<Core>(
        "mpdr_forward", on, k, operands, [&](const MpdrForward& k) { check_forward(p, k); },
        [&](const MpdrForward& k) { Core::mpdr_forward(p, k, on); });
  });
  m.def("mpdr_backward", [](const LifParams& p, Execution on, bool bptt, int64_t T, int64_t n, int dtype,
                            bool potential_is_v, const py::args& operands) {
    const MpdrBackward k{{T, n, dtype_of(dtype), p.rule, potential_is_v}};
    const auto fits = [&](const MpdrBackward& k) {
      check_backward(k, bptt);
      require(!(bptt && k.g_local), "the gradient through time has no local part");
    };
    call<Core>("mpdr_backward", on, k, operands, fits, [&](const MpdrBackward& k) {
      (bptt ? Core::mpdr_backward_bptt : Core::mpdr_backward_online)(p, k, on);
    });
  });
}

}  // namespace bindings
}  // namespace fastsnn
