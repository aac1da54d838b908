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

// of x, of weight and bias, and of the running statistics
using NormTypes = std::array<int, 3>;
// of x, of weight and bias
using ReduceTypes = std::array<int, 2>;

inline OsrForward osr_step(const StatsSizes& sizes, const NormTypes& types, double eps, double limit, bool strict,
                           bool pooled, bool ends, double share, int64_t step) {
  const auto [input, learned, running] = types;
  OsrForward k{};
  static_cast<Channels&>(k) = channels_of(sizes, input);
  k.learned = dtype_of(learned), k.running = dtype_of(running), k.eps = eps;
  k.limit = limit, k.strict = strict, k.pooled = pooled, k.ends = ends, k.own_share = share, k.step = step;
  return k;
}

inline OsrReduce osr_sums(const StatsSizes& sizes, const ReduceTypes& types) {
  OsrReduce k{};
  static_cast<Channels&>(k) = channels_of(sizes, types[0]);
  k.learned = dtype_of(types[1]);
  return k;
}

inline void check_step(const OsrForward& k) {
  require(!k.statistics == !k.n_all, "statistics and n are wanted together");
  require(k.statistics || !(k.total || k.decides()), "a step needs statistics");
  require(!k.n_before == !k.mean_before && !k.n_before == !k.m2_before, "n, mean and m2 come together");
  require(!k.ends || (k.total && k.folds), "the end of a sequence needs total and folds");
}

template <class Core>
void bind_osr(py::module_& m) {
  using Execution = typename Core::Execution;
  m.def("osr_forward", [](Execution on, const StatsSizes& sizes, const NormTypes& types, double eps, double limit,
                          bool strict, bool pooled, bool ends, double share, int64_t step, const py::args& operands) {
    const OsrForward k = osr_step(sizes, types, eps, limit, strict, pooled, ends, share, step);
    call<Core>("osr_forward", on, k, operands, check_step, [&](const OsrForward& k) { Core::osr_forward(k, on); });
  });
  m.def("osr_lif_forward", [](const LifParams& p, Execution on, const StatsSizes& sizes, const NormTypes& types,
                              double eps, double limit, bool strict, bool pooled, bool ends, double share, int64_t step,
                              bool first, bool potential_is_v, const py::args& operands) {
    const OsrForward norm = osr_step(sizes, types, eps, limit, strict, pooled, ends, share, step);
    const auto fits = [&](const OsrLifForward& k) {
      check_step(k);
      check_forward(p, k.neuron());
    };
    call<Core>("osr_lif_forward", on, OsrLifForward{norm, p.rule, first, potential_is_v}, operands, fits,
               [&](const OsrLifForward& k) { Core::osr_lif_forward(p, k, k.neuron(), on); });
  });
  m.def("osr_reduce", [](Execution on, const StatsSizes& sizes, const ReduceTypes& types, const py::args& operands) {
    call<Core>("osr_reduce", on, osr_sums(sizes, types), operands,
               [&](const OsrReduce& k) { Core::osr_reduce(k, on); });
  });
  m.def("osr_lif_reduce", [](const LifParams& p, Execution on, const StatsSizes& sizes, const ReduceTypes& types,
                             const py::args& operands) {
    call<Core>("osr_lif_reduce", on, OsrLifReduce{osr_sums(sizes, types)}, operands,
               [&](const OsrLifReduce& k) { Core::osr_lif_reduce(p, k, k.neuron(), on); });
  });
  m.def("osr_gradient", [](Execution on, const StatsSizes& sizes, int dtype, const py::args& operands) {
    call<Core>("osr_gradient", on, OsrGradient{channels_of(sizes, dtype)}, operands,
               [&](const OsrGradient& k) { Core::osr_gradient(k, on); });
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
