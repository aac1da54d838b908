#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>

#include "../core/lif.h"
#include "../core/trace.h"
#include "../cpu/dispatch.h"

// Thin: argument structs in, kernels called with the GIL released. Shapes and types are validated
// in fastsnn/ops; what can be checked on numbers alone is checked here.
namespace py = pybind11;
using namespace fastsnn;

namespace {

using Address = std::uintptr_t;

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

void require(bool ok, const char* message) {
  if (!ok) throw std::invalid_argument(message);
}

bool known(int value, int count) { return value >= 0 && value < count; }

LifParams lif_params(double leak, double gain, double bias, double threshold, double v_reset, double reset_grad,
                     double height, double slope, int reset, int trace, int surrogate) {
  require(known(reset, int(generic::Reset::count)), "reset: unknown code");
  require(known(trace, int(generic::Trace::count)), "trace: unknown code");
  require(known(surrogate, int(generic::Surrogate::count)), "surrogate: unknown code");
  return LifParams{leak, gain, bias, threshold, v_reset, reset_grad, height, slope, reset, trace, surrogate};
}

void check(int64_t a, int64_t b, int dtype, int threads) {
  require(a >= 0 && b >= 0, "sizes must not be negative");
  require(known(dtype, int(Dtype::count)), "dtype: unknown code");
  require(threads >= 1, "threads must be at least 1");
}

void lif_forward(const LifParams& p, int64_t T, int64_t n, int dtype, int threads, bool first, bool potential_is_v,
                 Address x, Address potential, Address trace, Address ratio, Address keep, Address spikes,
                 Address u_last, Address v_last, Address v_seq, Address trace_seq, Address ratio_last) {
  check(T, n, dtype, threads);
  if (T == 0 || n == 0) return;
  require(x && spikes, "x and spikes must not be null");
  require(p.trace == int(generic::Trace::none) || trace_seq, "a traced rule needs trace_seq");
  py::gil_scoped_release nogil;
  active_kernels().lif_forward(
      p, LifForward{T, n, Dtype(dtype), threads, first, potential_is_v, pointer(x), pointer(potential), pointer(trace),
                    pointer(ratio), pointer(keep), pointer(spikes), pointer(u_last), pointer(v_last), pointer(v_seq),
                    pointer(trace_seq), pointer(ratio_last)});
}

void lif_backward(const LifParams& p, bool bptt, int64_t T, int64_t n, int dtype, int threads, bool potential_is_v,
                  Address g_spikes, Address keep, Address u, Address x, Address potential, Address g_v_last,
                  Address g_v_seq, Address g_x, Address g_v_first) {
  check(T, n, dtype, threads);
  if (T == 0 || n == 0) return;
  require((u || x) && g_x, "g_x and one of u, x must not be null");
  py::gil_scoped_release nogil;
  const Kernels& kernels = active_kernels();
  (bptt ? kernels.lif_backward_bptt : kernels.lif_backward_online)(
      p,
      LifBackward{T, n, Dtype(dtype), threads, potential_is_v, pointer(g_spikes), pointer(keep), pointer(u), pointer(x),
                  pointer(potential), pointer(g_v_last), pointer(g_v_seq), pointer(g_x), pointer(g_v_first)});
}

Standardize standardize(int64_t rows, int64_t cols, int dtype, int threads, double eps, Address weight, Address gain,
                        Address mean, Address inverse) {
  check(rows, cols, dtype, threads);
  require(weight && gain && mean && inverse, "pointers must not be null");
  return Standardize{rows,          cols,          Dtype(dtype),    threads, eps, pointer(weight),
                     pointer(gain), pointer(mean), pointer(inverse)};
}

void standardize_forward(int64_t rows, int64_t cols, int dtype, int threads, double eps, Address weight, Address gain,
                         Address mean, Address inverse, Address out) {
  if (rows == 0 || cols == 0) return;
  const Standardize base = standardize(rows, cols, dtype, threads, eps, weight, gain, mean, inverse);
  require(out, "out must not be null");
  py::gil_scoped_release nogil;
  active_kernels().standardize_forward(StandardizeForward{base, pointer(out)});
}

void standardize_backward(int64_t rows, int64_t cols, int dtype, int threads, double eps, Address weight, Address gain,
                          Address mean, Address inverse, Address g_out, Address g_weight, Address g_gain) {
  if (rows == 0 || cols == 0) return;
  const Standardize base = standardize(rows, cols, dtype, threads, eps, weight, gain, mean, inverse);
  require(g_out && g_weight && g_gain, "gradients must not be null");
  py::gil_scoped_release nogil;
  active_kernels().standardize_backward(StandardizeBackward{base, pointer(g_out), pointer(g_weight), pointer(g_gain)});
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "fastsnn CPU kernels: raw pointers in, no torch. Use fastsnn.functional.";
  py::class_<LifParams>(m, "LifParams")
      .def(py::init(&lif_params), py::arg("leak"), py::arg("gain"), py::arg("bias"), py::arg("threshold"),
           py::arg("v_reset"), py::arg("reset_grad"), py::arg("height"), py::arg("slope"), py::arg("reset"),
           py::arg("trace"), py::arg("surrogate"));
  m.def("lif_forward", &lif_forward);
  m.def("lif_backward", &lif_backward);
  m.def("standardize_forward", &standardize_forward);
  m.def("standardize_backward", &standardize_backward);
  m.def("isas", &usable_isas, "Instruction sets this processor can run, best first.");
  m.def("isa", [] { return std::string(active_kernels().isa); }, "The instruction set in use.");
  m.def("choose_isa", &choose_isa, "Use one of isas(); false if it cannot run here.");
#if defined(_OPENMP)
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
  m.attr("version") = FASTSNN_VERSION;
}
