#include "../native/sanitize.h"

#include "../../csrc/cuda/kernels.h"

namespace {

using namespace fastsnn;

struct Cuda {
  static constexpr bool kRecomputes = false;
  static constexpr int64_t kMany = 4609, kMost = 50000;  // several blocks, and fibres are slow
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
  static void osr_forward(const OsrForward& k) { cuda::osr_forward(k, kStream); }
  static void osr_reduce(const OsrReduce& k) { cuda::osr_reduce(k, kStream); }
  static void osr_gradient(const OsrGradient& k) { cuda::osr_gradient(k, kStream); }
  static void osr_lif_forward(const LifParams& p, const OsrForward& k, const LifForward& lif) {
    cuda::osr_lif_forward(p, k, lif, kStream);
  }
  static void osr_lif_reduce(const LifParams& p, const OsrReduce& k, const LifBackward& lif) {
    cuda::osr_lif_reduce(p, k, lif, kStream);
  }
  static void ots_charge(const LifParams& p, const OtsCharge& k) { cuda::ots_charge(p, k, kStream); }
  static void ots_fire(const LifParams& p, const OtsFire& k) { cuda::ots_fire(p, k, kStream); }
  static void ots_backward(const LifParams& p, const OtsBackward& k) { cuda::ots_backward(p, k, kStream); }
  static void mpdr_forward(const LifParams& p, const MpdrForward& k) { cuda::mpdr_forward(p, k, kStream); }
  static void mpdr_backward_online(const LifParams& p, const MpdrBackward& k) {
    cuda::mpdr_backward_online(p, k, kStream);
  }
  static void mpdr_backward_bptt(const LifParams& p, const MpdrBackward& k) { cuda::mpdr_backward_bptt(p, k, kStream); }
};

}  // namespace

int main(int argc, char** argv) { return sanitize::main<Cuda>(argc, argv); }
