#include "../native/sanitize.h"

#include "../../csrc/cuda/kernels.h"

namespace {

using namespace fastsnn;

struct Cuda {
  static constexpr bool kRecomputes = false;
  static constexpr cuda::Stream kStream{0, nullptr};
  static void lif_forward(const LifParams& p, const LifForward& k) { cuda::lif_forward(p, k, kStream); }
  static void lif_backward_online(const LifParams& p, const LifBackward& k) {
    cuda::lif_backward_online(p, k, kStream);
  }
  static void lif_backward_bptt(const LifParams& p, const LifBackward& k) { cuda::lif_backward_bptt(p, k, kStream); }
  static void standardize_forward(const StandardizeForward& k) { cuda::standardize_forward(k, kStream); }
  static void standardize_backward(const StandardizeBackward& k) { cuda::standardize_backward(k, kStream); }
  static void empf_forward(const EmpfForward& k) { cuda::empf_forward(k, kStream); }
  static void empf_backward(const EmpfBackward& k) { cuda::empf_backward(k, kStream); }
  static void empf_potential(const EmpfPotential& k) { cuda::empf_potential(k, kStream); }
  static void empf_norm_forward(const EmpfNormForward& k) { cuda::empf_norm_forward(k, kStream); }
  static void empf_norm_sums(const EmpfNormSums& k) { cuda::empf_norm_sums(k, kStream); }
  static void empf_norm_backward(const EmpfNormBackward& k) { cuda::empf_norm_backward(k, kStream); }
};

}  // namespace

int main(int argc, char** argv) { return sanitize::main<Cuda>(argc, argv); }
