#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>

#include "../core/arguments.h"
#include "../core/lif.h"
#include "../core/trace.h"

// What every core binds. Thin: tensors' addresses in, kernels called with the GIL released. Shapes and
// types are validated in fastsnn/ops; what can be checked on numbers alone is checked here.
// A Core has a type Execution (where to run), check(Execution) and the kernels.
namespace fastsnn {
namespace bindings {

namespace py = pybind11;

// Where an operand lies: a tensor's data, or null for None.
struct Address {
  void* at = nullptr;
  operator bool() const { return at; }
};

inline void* pointer(Address address) { return address.at; }

inline void require(bool ok, const char* message) {
  if (!ok) throw std::invalid_argument(message);
}

template <class Enum>
bool known(int value) {
  return value >= 0 && value < int(Enum::count);
}

inline LifParams lif_params(double leak, double gain, double bias, double threshold, double v_reset, double reset_grad,
                            double height, double slope, int reset, int trace, int surrogate) {
  require(known<FASTSNN_ISA::Reset>(reset), "reset: unknown code");
  require(known<FASTSNN_ISA::Trace>(trace), "trace: unknown code");
  require(known<FASTSNN_ISA::Surrogate>(surrogate), "surrogate: unknown code");
  return LifParams{leak, gain, bias, threshold, v_reset, reset_grad, height, slope, reset, trace, surrogate};
}

template <class Core>
struct Bindings {
  using Execution = typename Core::Execution;

  static void check(const Execution& on, int64_t a, int64_t b, int dtype) {
    require(a >= 0 && b >= 0, "sizes must not be negative");
    require(known<Dtype>(dtype), "dtype: unknown code");
    Core::check(on);
  }

  static void lif_forward(const LifParams& p, Execution on, int64_t T, int64_t n, int dtype, bool first,
                          bool potential_is_v, Address x, Address potential, Address trace, Address ratio, Address keep,
                          Address spikes, Address u_last, Address u_seq, Address v_last, Address v_seq,
                          Address trace_seq, Address ratio_last) {
    check(on, T, n, dtype);
    if (T == 0 || n == 0) return;
    require(x && spikes, "x and spikes must not be null");
    require(p.trace == int(FASTSNN_ISA::Trace::none) || trace_seq, "a traced rule needs trace_seq");
    py::gil_scoped_release nogil;
    Core::lif_forward(
        p,
        LifForward{T, n, Dtype(dtype), first, potential_is_v, pointer(x), pointer(potential), pointer(trace),
                   pointer(ratio), pointer(keep), pointer(spikes), pointer(u_last), pointer(u_seq), pointer(v_last),
                   pointer(v_seq), pointer(trace_seq), pointer(ratio_last)},
        on);
  }

  static void lif_backward(const LifParams& p, Execution on, bool bptt, int64_t T, int64_t n, int dtype,
                           bool potential_is_v, Address g_spikes, Address keep, Address u, Address x, Address potential,
                           Address g_v_last, Address g_v_seq, Address g_x, Address g_v_first) {
    check(on, T, n, dtype);
    if (T == 0 || n == 0) return;
    require((u || x) && g_x, "g_x and one of u, x must not be null");
    py::gil_scoped_release nogil;
    (bptt ? Core::lif_backward_bptt : Core::lif_backward_online)(
        p,
        LifBackward{T, n, Dtype(dtype), potential_is_v, pointer(g_spikes), pointer(keep), pointer(u), pointer(x),
                    pointer(potential), pointer(g_v_last), pointer(g_v_seq), pointer(g_x), pointer(g_v_first)},
        on);
  }

  static Standardize standardize(int64_t rows, int64_t cols, int dtype, double eps, Address weight, Address gain,
                                 Address mean, Address inverse) {
    require(weight && gain && mean && inverse, "pointers must not be null");
    return Standardize{rows, cols, Dtype(dtype), eps, pointer(weight), pointer(gain), pointer(mean), pointer(inverse)};
  }

  static void standardize_forward(Execution on, int64_t rows, int64_t cols, int dtype, double eps, Address weight,
                                  Address gain, Address mean, Address inverse, Address out) {
    check(on, rows, cols, dtype);
    if (rows == 0 || cols == 0) return;
    const Standardize base = standardize(rows, cols, dtype, eps, weight, gain, mean, inverse);
    require(out, "out must not be null");
    py::gil_scoped_release nogil;
    Core::standardize_forward(StandardizeForward{base, pointer(out)}, on);
  }

  static void standardize_backward(Execution on, int64_t rows, int64_t cols, int dtype, double eps, Address weight,
                                   Address gain, Address mean, Address inverse, Address g_out, Address g_weight,
                                   Address g_gain) {
    check(on, rows, cols, dtype);
    if (rows == 0 || cols == 0) return;
    const Standardize base = standardize(rows, cols, dtype, eps, weight, gain, mean, inverse);
    require(g_out && g_weight && g_gain, "gradients must not be null");
    py::gil_scoped_release nogil;
    Core::standardize_backward(StandardizeBackward{base, pointer(g_out), pointer(g_weight), pointer(g_gain)}, on);
  }
};

template <class Core>
void bind(py::module_& m) {
  py::class_<LifParams>(m, "LifParams", py::module_local())
      .def(py::init(&lif_params), py::arg("leak"), py::arg("gain"), py::arg("bias"), py::arg("threshold"),
           py::arg("v_reset"), py::arg("reset_grad"), py::arg("height"), py::arg("slope"), py::arg("reset"),
           py::arg("trace"), py::arg("surrogate"));
  m.def("lif_forward", &Bindings<Core>::lif_forward);
  m.def("lif_backward", &Bindings<Core>::lif_backward);
  m.def("standardize_forward", &Bindings<Core>::standardize_forward);
  m.def("standardize_backward", &Bindings<Core>::standardize_backward);
  m.attr("version") = FASTSNN_VERSION;
}

}  // namespace bindings
}  // namespace fastsnn

namespace pybind11 {
namespace detail {

template <>
struct type_caster<fastsnn::bindings::Address> {
  PYBIND11_TYPE_CASTER(fastsnn::bindings::Address, const_name("torch.Tensor | None"));

  bool load(handle operand, bool) {
    if (operand.is_none()) return true;
    static PyObject* const data_ptr = PyUnicode_InternFromString("data_ptr");
    const object address = reinterpret_steal<object>(PyObject_CallMethodNoArgs(operand.ptr(), data_ptr));
    if (address) value.at = PyLong_AsVoidPtr(address.ptr());
    if (!PyErr_Occurred()) return true;
    PyErr_Clear();
    return false;
  }
};

}  // namespace detail
}  // namespace pybind11
