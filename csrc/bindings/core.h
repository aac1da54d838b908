#pragma once

#include <pybind11/stl.h>

#include "../core/rules/check.h"
#include "call.h"

// What every core binds: its kernels, called with the GIL released, parameters and rules.
namespace fastsnn {
namespace bindings {

inline LifParams lif_params(const py::kwargs& given) {
  static const Declaration declaration = [] {
    Declaration of_params;
    LifParams{}.numbers(of_params);
    return of_params;
  }();
  const py::tuple names(given.attr("keys")()), values(given.attr("values")());
  Arguments arguments("LifParams", declaration.names, PySequence_Fast_ITEMS(values.ptr()), 0, names.ptr());
  LifParams p{};
  p.numbers(arguments);
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
  py::class_<LifParams>(m, "LifParams", py::module_local()).def(py::init(&lif_params));
  m.attr("rules") = rules();
  m.attr("version") = FASTSNN_VERSION;
  return bind_kernels<Core>(m);
}

}  // namespace bindings
}  // namespace fastsnn
