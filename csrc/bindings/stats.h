#pragma once

#include <array>

#include "../core/stats.h"
#include "kernels.h"

// What a core with the kernels of online statistics binds.
namespace fastsnn {
namespace bindings {

template <class Core>
struct StatsBindings {
  using Execution = typename Core::Execution;

  static double* doubles(Address address) { return static_cast<double*>(pointer(address)); }

  // parts, and x's shape [outer, channels, inner]
  using Sizes = std::array<int64_t, 4>;

  static Channels channels(const Execution& on, const Sizes& sizes, int dtype) {
    const auto [parts, outer, channels, inner] = sizes;
    require(parts >= 1 && outer >= 0 && channels >= 0 && inner >= 0, "sizes must not be negative");
    require(known<Dtype>(dtype), "dtype: unknown code");
    Core::check(on);
    return Channels{outer, channels, inner, parts, Dtype(dtype)};
  }

  static bool empty(const Channels& k) { return k.outer == 0 || k.channels == 0 || k.inner == 0; }

  static OsrForward forward(const Channels& k, Address x, Address center, Address factor, Address shift, Address y,
                            Address mean, Address m2, Address room) {
    require(x && center && factor && shift, "x and the affine map must not be null");
    require(!mean == !m2, "mean and m2 are wanted together");
    return OsrForward{k,          pointer(x),    doubles(center), doubles(factor), doubles(shift),
                      pointer(y), doubles(mean), doubles(m2),     doubles(room)};
  }

  static OsrReduce reduce(const Channels& k, Address x, Address g, Address mean, Address inverse, Address sums,
                          Address room) {
    require(x && mean && inverse && sums, "pointers must not be null");
    return OsrReduce{k, pointer(x), pointer(g), doubles(mean), doubles(inverse), doubles(sums), doubles(room)};
  }

  static void osr_forward(Execution on, const Sizes& sizes, int dtype, Address x, Address center, Address factor,
                          Address shift, Address y, Address mean, Address m2, Address room) {
    const Channels base = channels(on, sizes, dtype);
    if (empty(base)) return;
    const OsrForward k = forward(base, x, center, factor, shift, y, mean, m2, room);
    require(y, "y must not be null");
    py::gil_scoped_release nogil;
    Core::osr_forward(k, on);
  }

  static void osr_reduce(Execution on, const Sizes& sizes, int dtype, Address x, Address g, Address mean,
                         Address inverse, Address sums, Address room) {
    const Channels base = channels(on, sizes, dtype);
    if (empty(base)) return;
    const OsrReduce k = reduce(base, x, g, mean, inverse, sums, room);
    require(g, "g must not be null");
    py::gil_scoped_release nogil;
    Core::osr_reduce(k, on);
  }

  static void osr_gradient(Execution on, const Sizes& sizes, int dtype, Address x, Address g, Address mean,
                           Address inverse, Address factor, Address means, Address g_x) {
    const Channels base = channels(on, sizes, dtype);
    if (empty(base)) return;
    require(x && g && mean && inverse && factor && means && g_x, "pointers must not be null");
    const OsrGradient k{base,           pointer(x),  pointer(g), doubles(mean), doubles(inverse), doubles(factor),
                        doubles(means), pointer(g_x)};
    py::gil_scoped_release nogil;
    Core::osr_gradient(k, on);
  }

  static void osr_lif_forward(const LifParams& p, Execution on, const Sizes& sizes, int dtype, Address x,
                              Address center, Address factor, Address shift, Address mean, Address m2, Address room,
                              bool first, bool potential_is_v, Address potential, Address trace, Address ratio,
                              Address keep, Address spikes, Address u, Address trace_out, Address ratio_out) {
    const Channels base = channels(on, sizes, dtype);
    if (empty(base)) return;
    const OsrForward norm = forward(base, x, center, factor, shift, {}, mean, m2, room);
    require(spikes && u, "spikes and u must not be null");
    require(p.trace == int(FASTSNN_ISA::Trace::none) || trace_out, "a traced rule needs trace_out");
    const int64_t n = base.outer * base.channels * base.inner;
    const LifForward lif{1,
                         n,
                         base.dtype,
                         first,
                         potential_is_v,
                         nullptr,
                         pointer(potential),
                         pointer(trace),
                         pointer(ratio),
                         pointer(keep),
                         pointer(spikes),
                         pointer(u),
                         nullptr,
                         nullptr,
                         nullptr,
                         pointer(trace_out),
                         pointer(ratio_out)};
    py::gil_scoped_release nogil;
    Core::osr_lif_forward(p, norm, lif, on);
  }

  static void osr_lif_reduce(const LifParams& p, Execution on, const Sizes& sizes, int dtype, Address x, Address mean,
                             Address inverse, Address sums, Address room, Address g_spikes, Address keep, Address u,
                             Address g_y) {
    const Channels base = channels(on, sizes, dtype);
    if (empty(base)) return;
    const OsrReduce k = reduce(base, x, {}, mean, inverse, sums, room);
    require(g_spikes && u && g_y, "g_spikes, u and g_y must not be null");
    const int64_t n = base.outer * base.channels * base.inner;
    const LifBackward lif{1,       n,       base.dtype, false,   pointer(g_spikes), pointer(keep), pointer(u),
                          nullptr, nullptr, nullptr,    nullptr, pointer(g_y),      nullptr};
    py::gil_scoped_release nogil;
    Core::osr_lif_reduce(p, k, lif, on);
  }

  static void check_row(const Execution& on, int64_t n, int dtype) {
    require(n >= 0, "sizes must not be negative");
    require(known<Dtype>(dtype), "dtype: unknown code");
    Core::check(on);
  }

  static void ots_charge(const LifParams& p, Execution on, int64_t n, int dtype, Address x, Address v, Address u,
                         Address moments, Address room) {
    check_row(on, n, dtype);
    if (n == 0) return;
    require(x && u && moments, "x, u and moments must not be null");
    py::gil_scoped_release nogil;
    Core::ots_charge(p, OtsCharge{n, Dtype(dtype), pointer(x), pointer(v), pointer(u), doubles(moments), doubles(room)},
                     on);
  }

  static void ots_fire(const LifParams& p, Execution on, int64_t n, int dtype, Address threshold, Address u,
                       Address trace, Address keep, Address spikes, Address v, Address trace_out) {
    check_row(on, n, dtype);
    if (n == 0) return;
    require(threshold && u && spikes && v, "threshold, u, spikes and v must not be null");
    require((p.trace == int(FASTSNN_ISA::Trace::none) && !trace_out) ||
                (p.trace == int(FASTSNN_ISA::Trace::ottt) && trace_out),
            "the rule must be without a trace, or ottt with trace_out");
    py::gil_scoped_release nogil;
    Core::ots_fire(p,
                   OtsFire{n, Dtype(dtype), doubles(threshold), pointer(u), pointer(trace), pointer(keep),
                           pointer(spikes), pointer(v), pointer(trace_out)},
                   on);
  }

  static void ots_backward(const LifParams& p, Execution on, int64_t n, int dtype, Address threshold, Address u,
                           Address g_spikes, Address keep, Address g_x) {
    check_row(on, n, dtype);
    if (n == 0) return;
    require(threshold && u && g_spikes && g_x, "threshold, u, g_spikes and g_x must not be null");
    py::gil_scoped_release nogil;
    Core::ots_backward(
        p, OtsBackward{n, Dtype(dtype), doubles(threshold), pointer(u), pointer(g_spikes), pointer(keep), pointer(g_x)},
        on);
  }
};

template <class Core>
void bind_stats(py::module_& m) {
  using B = StatsBindings<Core>;
  m.def("osr_forward", &B::osr_forward);
  m.def("osr_reduce", &B::osr_reduce);
  m.def("osr_gradient", &B::osr_gradient);
  m.def("osr_lif_forward", &B::osr_lif_forward);
  m.def("osr_lif_reduce", &B::osr_lif_reduce);
  m.def("ots_charge", &B::ots_charge);
  m.def("ots_fire", &B::ots_fire);
  m.def("ots_backward", &B::ots_backward);
}

}  // namespace bindings
}  // namespace fastsnn
