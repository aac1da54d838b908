#include "../cpu/dispatch.h"
#include "kernels.h"
#include "stats.h"

using namespace fastsnn;

namespace {

struct CpuCore {
  using Execution = int;  // threads

  static void check(int threads) { bindings::require(threads >= 1, "threads must be at least 1"); }
  static void lif_forward(const LifParams& p, const LifForward& k, int threads) {
    active_kernels().lif_forward(p, k, threads);
  }
  static void lif_backward_online(const LifParams& p, const LifBackward& k, int threads) {
    active_kernels().lif_backward_online(p, k, threads);
  }
  static void lif_backward_bptt(const LifParams& p, const LifBackward& k, int threads) {
    active_kernels().lif_backward_bptt(p, k, threads);
  }
  static void standardize_forward(const StandardizeForward& k, int threads) {
    active_kernels().standardize_forward(k, threads);
  }
  static void standardize_backward(const StandardizeBackward& k, int threads) {
    active_kernels().standardize_backward(k, threads);
  }
  static void osr_forward(const OsrForward& k, int threads) { active_kernels().osr_forward(k, threads); }
  static void osr_reduce(const OsrReduce& k, int threads) { active_kernels().osr_reduce(k, threads); }
  static void osr_gradient(const OsrGradient& k, int threads) { active_kernels().osr_gradient(k, threads); }
  static void osr_lif_forward(const LifParams& p, const OsrForward& k, const LifForward& lif, int threads) {
    active_kernels().osr_lif_forward(p, k, lif, threads);
  }
  static void osr_lif_reduce(const LifParams& p, const OsrReduce& k, const LifBackward& lif, int threads) {
    active_kernels().osr_lif_reduce(p, k, lif, threads);
  }
  static void ots_charge(const LifParams& p, const OtsCharge& k, int threads) {
    active_kernels().ots_charge(p, k, threads);
  }
  static void ots_fire(const LifParams& p, const OtsFire& k, int threads) { active_kernels().ots_fire(p, k, threads); }
  static void ots_backward(const LifParams& p, const OtsBackward& k, int threads) {
    active_kernels().ots_backward(p, k, threads);
  }
};

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "fastsnn CPU kernels: raw pointers in, no torch. Use fastsnn.functional.";
  bindings::bind<CpuCore>(m);
  bindings::bind_stats<CpuCore>(m);
  m.def("isas", &usable_isas, "Instruction sets this processor can run, best first.");
  m.def("isa", [] { return std::string(active_kernels().isa); }, "The instruction set in use.");
  m.def("choose_isa", &choose_isa, "Use one of isas(); false if it cannot run here.");
#if defined(_OPENMP)
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
}
