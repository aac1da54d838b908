#include "../cpu/dispatch.h"
#include "binary.h"
#include "checks.h"
#include "empf.h"
#include "kernels.h"
#include "mpdr.h"
#include "stats.h"
#include "stgr.h"

using namespace fastsnn;

namespace {

struct CpuCore {
  using Execution = int;  // threads
  static constexpr int kMostThreads = 1024;

  static void check(int threads) {
    bindings::require(threads >= 1 && threads <= kMostThreads, "threads must be in 1..1024");
  }
  static bindings::dlpack::Device device(int) { return {bindings::dlpack::kCpu, 0}; }
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
  static void mpdr_forward(const LifParams& p, const MpdrForward& k, int threads) {
    active_kernels().mpdr_forward(p, k, threads);
  }
  static void mpdr_backward_online(const LifParams& p, const MpdrBackward& k, int threads) {
    active_kernels().mpdr_backward_online(p, k, threads);
  }
  static void mpdr_backward_bptt(const LifParams& p, const MpdrBackward& k, int threads) {
    active_kernels().mpdr_backward_bptt(p, k, threads);
  }
  static void stgr_sgd(const StgrSgd& k, int threads) { active_kernels().stgr_sgd(k, threads); }
  static void empf_forward(const EmpfForward& k, int threads) { active_kernels().empf_forward(k, threads); }
  static void empf_backward(const EmpfBackward& k, int threads) { active_kernels().empf_backward(k, threads); }
  static void empf_potential(const EmpfPotential& k, int threads) { active_kernels().empf_potential(k, threads); }
  static void empf_norm_forward(const EmpfNormForward& k, int threads) {
    active_kernels().empf_norm_forward(k, threads);
  }
  static void empf_norm_sums(const EmpfNormSums& k, int threads) { active_kernels().empf_norm_sums(k, threads); }
  static void empf_norm_backward(const EmpfNormBackward& k, int threads) {
    active_kernels().empf_norm_backward(k, threads);
  }
  static void binarize_forward(const BinarizeForward& k, int threads) { active_kernels().binarize_forward(k, threads); }
  static void binarize_backward(const BinarizeBackward& k, int threads) {
    active_kernels().binarize_backward(k, threads);
  }
  static void packed_product(const PackedProduct& k, int threads) { active_kernels().packed_product(k, threads); }
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
  m.doc() = "fastsnn CPU kernels: tensors in, no torch library. Use fastsnn.functional.";
  bindings::bind<CpuCore>(m);
  bindings::bind_mpdr<CpuCore>(m);
  bindings::bind_stgr<CpuCore>(m);
  bindings::bind_empf<CpuCore>(m);
  bindings::bind_binary<CpuCore>(m);
  bindings::bind_stats<CpuCore>(m);
  bindings::bind_checks(
      m.def_submodule("checks", "Checks the operands of a call as the kernels do, and runs nothing."));
  m.def("isas", &usable_isas, "Instruction sets this processor can run, best first.");
  m.def("isa", [] { return std::string(active_kernels().isa); }, "The instruction set in use.");
  m.def("choose_isa", &choose_isa, "Use one of isas(); false if it cannot run here.");
#if defined(_OPENMP)
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
}
