#pragma once

#include "../core/lif.h"
#include "../core/trace.h"
#include "call.h"

// What every core binds. Thin: sizes and tensors in, kernels called with the GIL released. Shapes of tensors are
// fastsnn/ops' to check; that each has the memory its call needs is checked here (call.h).
// A Core has a type Execution (where to run), check(Execution), device(Execution) and the kernels.
namespace fastsnn {
namespace bindings {

inline LifParams lif_params(double leak, double gain, double bias, double threshold, double v_reset, double reset_grad,
                            double height, double slope, int reset, int trace, int surrogate) {
  require(known<FASTSNN_ISA::Reset>(reset), "reset: unknown code");
  require(known<FASTSNN_ISA::Trace>(trace), "trace: unknown code");
  require(known<FASTSNN_ISA::Surrogate>(surrogate), "surrogate: unknown code");
  return LifParams{leak, gain, bias, threshold, v_reset, reset_grad, height, slope, reset, trace, surrogate};
}

inline bool traced(const LifParams& p) { return p.trace != int(FASTSNN_ISA::Trace::none); }

inline void check_forward(const LifParams& p, const LifForward& k) {
  require(!traced(p) || k.empty() || k.trace_seq, "a traced rule needs trace_seq");
}

inline void check_backward(const LifBackward& k) { require(k.empty() || k.u || k.x, "one of u and x is needed"); }

inline void bind_params(py::module_& m) {
  py::class_<LifParams>(m, "LifParams", py::module_local())
      .def(py::init(&lif_params), py::arg("leak"), py::arg("gain"), py::arg("bias"), py::arg("threshold"),
           py::arg("v_reset"), py::arg("reset_grad"), py::arg("height"), py::arg("slope"), py::arg("reset"),
           py::arg("trace"), py::arg("surrogate"));
}

template <class Core>
void bind_lif(py::module_& m) {
  using Execution = typename Core::Execution;
  m.def("lif_forward", [](const LifParams& p, Execution on, int64_t T, int64_t n, int dtype, bool first,
                          bool potential_is_v, const py::args& operands) {
    const LifForward k{T, n, dtype_of(dtype), first, potential_is_v};
    call<Core>(
        "lif_forward", on, k, operands, [&](const LifForward& k) { check_forward(p, k); },
        [&](const LifForward& k) { Core::lif_forward(p, k, on); });
  });
  m.def("lif_backward", [](const LifParams& p, Execution on, bool bptt, int64_t T, int64_t n, int dtype,
                           bool potential_is_v, const py::args& operands) {
    const LifBackward k{T, n, dtype_of(dtype), potential_is_v};
    call<Core>("lif_backward", on, k, operands, check_backward,
               [&](const LifBackward& k) { (bptt ? Core::lif_backward_bptt : Core::lif_backward_online)(p, k, on); });
  });
}

template <class Core>
void bind_standardize(py::module_& m) {
  using Execution = typename Core::Execution;
  m.def("standardize_forward",
        [](Execution on, int64_t rows, int64_t cols, int dtype, double eps, const py::args& operands) {
          const StandardizeForward k{{rows, cols, dtype_of(dtype), eps}};
          call<Core>("standardize_forward", on, k, operands,
                     [&](const StandardizeForward& k) { Core::standardize_forward(k, on); });
        });
  m.def("standardize_backward",
        [](Execution on, int64_t rows, int64_t cols, int dtype, double eps, const py::args& operands) {
          const StandardizeBackward k{{rows, cols, dtype_of(dtype), eps}};
          call<Core>("standardize_backward", on, k, operands,
                     [&](const StandardizeBackward& k) { Core::standardize_backward(k, on); });
        });
}

template <class Core>
void bind_kernels(py::module_& m) {
  bind_lif<Core>(m);
  bind_standardize<Core>(m);
}

template <class Core>
void bind(py::module_& m) {
  bind_params(m);
  bind_kernels<Core>(m);
  m.attr("version") = FASTSNN_VERSION;
}

}  // namespace bindings
}  // namespace fastsnn
