#include "sanitize.h"

#include "../../csrc/cpu/kernels.h"

namespace fastsnn {
namespace generic {
extern const Kernels kernels;
}
}  // namespace fastsnn

namespace {

using namespace fastsnn;

struct Cpu {
  static constexpr bool kRecomputes = true;
  static constexpr int64_t kMany = 40013, kMost = 200000;  // two threads have a share
  static constexpr int kThreads = 2;
  static void lif_forward(const LifParams& p, const LifForward& k) { generic::kernels.lif_forward(p, k, kThreads); }
  static void lif_backward_online(const LifParams& p, const LifBackward& k) {
    generic::kernels.lif_backward_online(p, k, kThreads);
  }
  static void lif_backward_bptt(const LifParams& p, const LifBackward& k) {
    generic::kernels.lif_backward_bptt(p, k, kThreads);
  }
  static void standardize_forward(const StandardizeForward& k) { generic::kernels.standardize_forward(k, kThreads); }
  static void standardize_backward(const StandardizeBackward& k) { generic::kernels.standardize_backward(k, kThreads); }
  static void empf_forward(const EmpfForward& k) { generic::kernels.empf_forward(k, kThreads); }
  static void empf_backward(const EmpfBackward& k) { generic::kernels.empf_backward(k, kThreads); }
  static void empf_potential(const EmpfPotential& k) { generic::kernels.empf_potential(k, kThreads); }
  static void empf_norm_forward(const EmpfNormForward& k) { generic::kernels.empf_norm_forward(k, kThreads); }
  static void empf_norm_sums(const EmpfNormSums& k) { generic::kernels.empf_norm_sums(k, kThreads); }
  static void empf_norm_backward(const EmpfNormBackward& k) { generic::kernels.empf_norm_backward(k, kThreads); }
  static void osr_forward(const OsrForward& k) { generic::kernels.osr_forward(k, kThreads); }
  static void osr_reduce(const OsrReduce& k) { generic::kernels.osr_reduce(k, kThreads); }
  static void osr_gradient(const OsrGradient& k) { generic::kernels.osr_gradient(k, kThreads); }
  static void osr_lif_forward(const LifParams& p, const OsrForward& k, const LifForward& lif) {
    generic::kernels.osr_lif_forward(p, k, lif, kThreads);
  }
  static void osr_lif_reduce(const LifParams& p, const OsrReduce& k, const LifBackward& lif) {
    generic::kernels.osr_lif_reduce(p, k, lif, kThreads);
  }
  static void ots_charge(const LifParams& p, const OtsCharge& k) { generic::kernels.ots_charge(p, k, kThreads); }
  static void ots_fire(const LifParams& p, const OtsFire& k) { generic::kernels.ots_fire(p, k, kThreads); }
  static void ots_backward(const LifParams& p, const OtsBackward& k) { generic::kernels.ots_backward(p, k, kThreads); }
  static void mpdr_forward(const LifParams& p, const MpdrForward& k) { generic::kernels.mpdr_forward(p, k, kThreads); }
  static void mpdr_backward_online(const LifParams& p, const MpdrBackward& k) {
    generic::kernels.mpdr_backward_online(p, k, kThreads);
  }
  static void mpdr_backward_bptt(const LifParams& p, const MpdrBackward& k) {
    generic::kernels.mpdr_backward_bptt(p, k, kThreads);
  }
};

using sanitize::Buffer;

void stgr(Dtype dtype, int64_t n) {
  const int64_t w = sanitize::width(dtype);
  Buffer g(n, w, 0), weight(n, w, 0), average(n, w, 0), previous(n, w, 0), momentum(n, w, 0);
  for (bool first : {true, false}) {
    generic::kernels.stgr_sgd(StgrSgd{n, dtype, first, first, 0.1, 0.5, 0.9, 0.1, 0.9, 1.0, 0.01, g.data(),
                                      weight.data(), average.data(), previous.data(), momentum.data()},
                              Cpu::kThreads);
  }
}

void steps() {
  for (int64_t n : {1, 17, 255, 2049, 40013}) {
    stgr(Dtype::f32, n);
    stgr(Dtype::f64, n);
  }
}

}  // namespace

int main(int argc, char** argv) {
  steps();
  return sanitize::main<Cpu>(argc, argv);
}
