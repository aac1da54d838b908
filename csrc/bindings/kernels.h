#pragma once

#include "../core/rules/check.h"
#include "call.h"

// What every core binds. Thin: sizes and tensors in, kernels called with the GIL released. Shapes of tensors are
// fastsnn/ops' to check; that each has the memory its call needs is checked here (call.h).
// A Core has a type Execution (where to run), check(Execution), device(Execution) and the kernels.
namespace fastsnn {
namespace bindings {

inline LifParams lif_params(double leak, double gain, double bias, double threshold, double v_reset, double reset_grad,
                            double height, double slope, int reset, int rule, int surrogate,
                            const std::vector<double>& of_rule) {
  require(known<FASTSNN_ISA::Reset>(reset), "reset: unknown code");
  require(known<Rule>(rule), "rule: unknown code");
  require(known<FASTSNN_ISA::Surrogate>(surrogate), "surrogate: unknown code");
  const auto& traits = FASTSNN_ISA::kRules[rule];
  require(!traits.soft_reset || reset == int(FASTSNN_ISA::Reset::soft), "the rule needs soft reset");
  require(int(of_rule.size()) == traits.parameters, "of_rule: one number is needed for each of the rule's parameters");
  LifParams p{leak, gain, bias, threshold, v_reset, reset_grad, height, slope, reset, rule, surrogate};
  std::copy(of_rule.begin(), of_rule.end(), p.of_rule);
  return p;
}

inline void check_forward(const LifParams& p, const LifForward& k) {
  const bool traced = FASTSNN_ISA::kRules[p.rule].traced;
  require(!traced || k.empty() || k.slots_out[0], "a traced rule needs its trace");
}

inline void check_backward(const LifBackward& k, bool bptt) {
  require(k.empty() || k.u || k.x, "one of u and x is needed");
  require(!bptt || !FASTSNN_ISA::kRules[k.rule].traced, "a rule with a trace has no gradient through time");
}

// name -> (slots as (name, drives, every_step), number of parameters), for other languages to compare theirs with
inline py::dict rules() {
  const std::string fault = FASTSNN_ISA::fault_of_rules();
  if (!fault.empty()) throw py::import_error(fault);
  py::dict found;
  for (const auto& rule : FASTSNN_ISA::kRules) {
    py::tuple slots(rule.count);
    for (int j = 0; j < rule.count; j++) {
      const Slot& slot = rule.slots[j];
      slots[j] = py::make_tuple(slot.name, slot.drives, slot.every_step);
    }
    found[rule.name] = py::make_tuple(slots, rule.parameters);
  }
  return found;
}

inline void bind_params(py::module_& m) {
  py::class_<LifParams>(m, "LifParams", py::module_local())
      .def(py::init(&lif_params), py::arg("leak"), py::arg("gain"), py::arg("bias"), py::arg("threshold"),
           py::arg("v_reset"), py::arg("reset_grad"), py::arg("height"), py::arg("slope"), py::arg("reset"),
           py::arg("rule"), py::arg("surrogate"), py::arg("of_rule"));
  m.attr("rules") = rules();
}

template <class Core>
void bind_lif(py::module_& m) {
  using Execution = typename Core::Execution;
  m.def("lif_forward", [](const LifParams& p, Execution on, int64_t T, int64_t n, int dtype, bool first,
                          bool potential_is_v, const py::args& operands) {
    const LifForward k{T, n, dtype_of(dtype), p.rule, first, potential_is_v};
    call<Core>(
        "lif_forward", on, k, operands, [&](const LifForward& k) { check_forward(p, k); },
        [&](const LifForward& k) { Core::lif_forward(p, k, on); });
  });
  m.def("lif_backward", [](const LifParams& p, Execution on, bool bptt, int64_t T, int64_t n, int dtype,
                           bool potential_is_v, const py::args& operands) {
    const LifBackward k{T, n, dtype_of(dtype), p.rule, potential_is_v};
    call<Core>(
        "lif_backward", on, k, operands, [&](const LifBackward& k) { check_backward(k, bptt); },
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
