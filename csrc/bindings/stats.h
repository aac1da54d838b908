#pragma once

#include <array>

#include "../core/stats.h"
#include "kernels.h"

// What a core with the kernels of online statistics binds.
namespace fastsnn {
namespace bindings {

// parts, and x's shape [outer, channels, inner]
using StatsSizes = std::array<int64_t, 4>;

inline Channels channels_of(const StatsSizes& sizes, int dtype) {
  const auto [parts, outer, channels, inner] = sizes;
  require(parts >= 1 && parts <= kMostParts, "parts must be in 1..4096");
  return Channels{outer, channels, inner, parts, dtype_of(dtype)};
}

inline void check_moments(const OsrForward& k) { require(!k.mean == !k.m2, "mean and m2 are wanted together"); }

template <class Core>
void bind_osr(py::module_& m) {
  using Execution = typename Core::Execution;
  m.def("osr_forward", [](Execution on, StatsSizes sizes, int dtype, const py::args& operands) {
    call<Core>("osr_forward", on, OsrForward{channels_of(sizes, dtype)}, operands, check_moments,
               [&](const OsrForward& k) { Core::osr_forward(k, on); });
  });
  m.def("osr_reduce", [](Execution on, StatsSizes sizes, int dtype, const py::args& operands) {
    call<Core>("osr_reduce", on, OsrReduce{channels_of(sizes, dtype)}, operands,
               [&](const OsrReduce& k) { Core::osr_reduce(k, on); });
  });
  m.def("osr_gradient", [](Execution on, StatsSizes sizes, int dtype, const py::args& operands) {
    call<Core>("osr_gradient", on, OsrGradient{channels_of(sizes, dtype)}, operands,
               [&](const OsrGradient& k) { Core::osr_gradient(k, on); });
  });
  m.def("osr_lif_forward", [](const LifParams& p, Execution on, StatsSizes sizes, int dtype, bool first,
                              bool potential_is_v, const py::args& operands) {
    const OsrLifForward k{{channels_of(sizes, dtype)}, p.rule, first, potential_is_v};
    const auto fits = [&](const OsrLifForward& k) {
      check_moments(k);
      check_forward(p, k.neuron());
    };
    call<Core>("osr_lif_forward", on, k, operands, fits,
               [&](const OsrLifForward& k) { Core::osr_lif_forward(p, k, k.neuron(), on); });
  });
  m.def("osr_lif_reduce", [](const LifParams& p, Execution on, StatsSizes sizes, int dtype, const py::args& operands) {
    call<Core>("osr_lif_reduce", on, OsrLifReduce{{channels_of(sizes, dtype)}}, operands,
               [&](const OsrLifReduce& k) { Core::osr_lif_reduce(p, k, k.neuron(), on); });
  });
}

template <class Core>
void bind_ots(py::module_& m) {
  using Execution = typename Core::Execution;
  m.def("ots_charge", [](const LifParams& p, Execution on, int64_t n, int dtype, const py::args& operands) {
    call<Core>("ots_charge", on, OtsCharge{n, dtype_of(dtype)}, operands,
               [&](const OtsCharge& k) { Core::ots_charge(p, k, on); });
  });
  m.def("ots_fire", [](const LifParams& p, Execution on, int64_t n, int dtype, const py::args& operands) {
    const auto fits = [&](const OtsFire& k) {
      require(p.rule == int(Rule::none) ? !k.trace_out : p.rule == int(Rule::ottt) && (k.empty() || k.trace_out),
              "the rule must be without a trace, or ottt with trace_out");
    };
    call<Core>("ots_fire", on, OtsFire{n, dtype_of(dtype)}, operands, fits,
               [&](const OtsFire& k) { Core::ots_fire(p, k, on); });
  });
  m.def("ots_backward", [](const LifParams& p, Execution on, int64_t n, int dtype, const py::args& operands) {
    call<Core>("ots_backward", on, OtsBackward{n, dtype_of(dtype)}, operands,
               [&](const OtsBackward& k) { Core::ots_backward(p, k, on); });
  });
}

template <class Core>
void bind_stats(py::module_& m) {
  bind_osr<Core>(m);
  bind_ots<Core>(m);
}

}  // namespace bindings
}  // namespace fastsnn
