#pragma once

#include <pybind11/stl.h>

#include "../core/rules/check.h"
#include "call.h"

// What every core binds: its kernels, called with the GIL released, parameters and rules.
namespace fastsnn {
namespace bindings {

inline void require(bool ok, const char* message) {
  if (!ok) throw std::invalid_argument(message);
}

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

// name -> what it takes, in words
template <class Core>
py::dict bind_kernels(py::module_& m) {
  py::dict kernels;
  FASTSNN_KERNELS(FASTSNN_BIND)
  m.attr("kernels") = kernels;
  return kernels;
}

template <class Core>
py::dict bind(py::module_& m) {
  bind_params(m);
  m.attr("version") = FASTSNN_VERSION;
  return bind_kernels<Core>(m);
}

}  // namespace bindings
}  // namespace fastsnn
