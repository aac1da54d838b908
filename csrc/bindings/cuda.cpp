#include "../cuda/kernels.h"
#include "binary.h"
#include "empf.h"
#include "kernels.h"
#include "mpdr.h"
#include "stats.h"

// where the operands lie; a build for the host sets the CPU
#ifndef FASTSNN_DEVICE
#define FASTSNN_DEVICE fastsnn::bindings::dlpack::kCuda
#endif

using namespace fastsnn;

namespace {

struct CudaCore {
  using Execution = std::pair<int, std::uintptr_t>;  // device, stream

  static bindings::dlpack::Device device(const Execution& on) { return {FASTSNN_DEVICE, on.first}; }
  static void check(const Execution& on) { bindings::require(on.first >= 0, "device must not be negative"); }
  static cuda::Stream stream(const Execution& on) { return {on.first, reinterpret_cast<void*>(on.second)}; }

  static void lif_forward(const LifParams& p, const LifForward& k, const Execution& on) {
    cuda::lif_forward(p, k, stream(on));
  }
  static void lif_backward_online(const LifParams& p, const LifBackward& k, const Execution& on) {
    cuda::lif_backward_online(p, k, stream(on));
  }
  static void lif_backward_bptt(const LifParams& p, const LifBackward& k, const Execution& on) {
    cuda::lif_backward_bptt(p, k, stream(on));
  }
  static void standardize_forward(const StandardizeForward& k, const Execution& on) {
    cuda::standardize_forward(k, stream(on));
  }
  static void standardize_backward(const StandardizeBackward& k, const Execution& on) {
    cuda::standardize_backward(k, stream(on));
  }
  static void empf_forward(const EmpfForward& k, const Execution& on) { cuda::empf_forward(k, stream(on)); }
  static void empf_backward(const EmpfBackward& k, const Execution& on) { cuda::empf_backward(k, stream(on)); }
  static void empf_potential(const EmpfPotential& k, const Execution& on) { cuda::empf_potential(k, stream(on)); }
  static void empf_norm_forward(const EmpfNormForward& k, const Execution& on) {
    cuda::empf_norm_forward(k, stream(on));
  }
  static void empf_norm_sums(const EmpfNormSums& k, const Execution& on) { cuda::empf_norm_sums(k, stream(on)); }
  static void empf_norm_backward(const EmpfNormBackward& k, const Execution& on) {
    cuda::empf_norm_backward(k, stream(on));
  }
  static void osr_forward(const OsrForward& k, const Execution& on) { cuda::osr_forward(k, stream(on)); }
  static void osr_reduce(const OsrReduce& k, const Execution& on) { cuda::osr_reduce(k, stream(on)); }
  static void osr_gradient(const OsrGradient& k, const Execution& on) { cuda::osr_gradient(k, stream(on)); }
  static void osr_lif_forward(const LifParams& p, const OsrForward& k, const LifForward& lif, const Execution& on) {
    cuda::osr_lif_forward(p, k, lif, stream(on));
  }
  static void osr_lif_reduce(const LifParams& p, const OsrReduce& k, const LifBackward& lif, const Execution& on) {
    cuda::osr_lif_reduce(p, k, lif, stream(on));
  }
  static void ots_charge(const LifParams& p, const OtsCharge& k, const Execution& on) {
    cuda::ots_charge(p, k, stream(on));
  }
  static void ots_fire(const LifParams& p, const OtsFire& k, const Execution& on) { cuda::ots_fire(p, k, stream(on)); }
  static void ots_backward(const LifParams& p, const OtsBackward& k, const Execution& on) {
    cuda::ots_backward(p, k, stream(on));
  }
  static void mpdr_forward(const LifParams& p, const MpdrForward& k, const Execution& on) {
    cuda::mpdr_forward(p, k, stream(on));
  }
  static void mpdr_backward_online(const LifParams& p, const MpdrBackward& k, const Execution& on) {
    cuda::mpdr_backward_online(p, k, stream(on));
  }
  static void mpdr_backward_bptt(const LifParams& p, const MpdrBackward& k, const Execution& on) {
    cuda::mpdr_backward_bptt(p, k, stream(on));
  }
  static void binarize_forward(const BinarizeForward& k, const Execution& on) { cuda::binarize_forward(k, stream(on)); }
  static void binarize_backward(const BinarizeBackward& k, const Execution& on) {
    cuda::binarize_backward(k, stream(on));
  }
  static void packed_product(const PackedProduct& k, const Execution& on) { cuda::packed_product(k, stream(on)); }
};

}  // namespace

PYBIND11_MODULE(FASTSNN_MODULE, m) {
  m.doc() = "fastsnn CUDA kernels: tensors in, no torch library. Use fastsnn.functional.";
  bindings::bind<CudaCore>(m);
  bindings::bind_empf<CudaCore>(m);
  bindings::bind_stats<CudaCore>(m);
  bindings::bind_mpdr<CudaCore>(m);
  bindings::bind_binary<CudaCore>(m);
  m.def("refusal", &cuda::refusal, "Why the kernels cannot run on a device; empty where they can.");
  m.def("driver_version", &cuda::driver_version, "CUDA version of the driver, such as 13000; 0 without one.");
  m.attr("archs") = FASTSNN_CUDA_ARCHS;
}
