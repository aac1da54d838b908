#pragma once

#include "../core/stgr.h"
#include "kernels.h"

// Binds the fused STGR step of a core that has one.
namespace fastsnn {
namespace bindings {

template <class Core>
void bind_stgr(py::module_& m) {
  m.def("stgr_sgd",
        [](typename Core::Execution on, int64_t n, int dtype, bool first, bool nesterov, double lam, double gam,
           double rho, double lr, double momentum, double undamped, double decay, const py::args& operands) {
          const StgrSgd k{n, dtype_of(dtype), first, nesterov, lam, gam, rho, lr, momentum, undamped, decay};
          require(k.dtype == Dtype::f32 || k.dtype == Dtype::f64, "dtype: STGR's step takes float32 and float64");
          call<Core>("stgr_sgd", on, k, operands, [&](const StgrSgd& k) { Core::stgr_sgd(k, on); });
        });
}

}  // namespace bindings
}  // namespace fastsnn
