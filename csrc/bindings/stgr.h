#pragma once

#include "../core/stgr.h"
#include "kernels.h"

// Binds the fused STGR step of a core that has one.
namespace fastsnn {
namespace bindings {

template <class Core>
void bind_stgr(py::module_& m) {
  m.def("stgr_sgd", [](typename Core::Execution on, int64_t n, int dtype, bool first, bool nesterov, double lam,
                       double gam, double rho, double lr, double momentum, double undamped, double decay, Address grad,
                       Address weight, Address average, Address previous, Address momentum_buffer) {
    require(n >= 0, "sizes must not be negative");
    require(Dtype(dtype) == Dtype::f32 || Dtype(dtype) == Dtype::f64, "dtype: unknown code");
    Core::check(on);
    if (n == 0) return;
    require(grad && weight && average && previous && momentum_buffer, "pointers must not be null");
    py::gil_scoped_release nogil;
    Core::stgr_sgd(
        StgrSgd{n, Dtype(dtype), first, nesterov, lam, gam, rho, lr, momentum, undamped, decay, pointer(grad),
                pointer(weight), pointer(average), pointer(previous), pointer(momentum_buffer)},
        on);
  });
}

}  // namespace bindings
}  // namespace fastsnn
