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
};

}  // namespace

int main(int argc, char** argv) { return sanitize::main<Cpu>(argc, argv); }
