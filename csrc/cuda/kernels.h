#pragma once

#include <string>

#include "../core/arguments.h"
#include "../core/bits.h"
#include "../core/empf.h"
#include "../core/mpdr.h"
#include "../core/stats.h"

// What the CUDA core provides. Errors are thrown as std::runtime_error.
namespace fastsnn {
namespace cuda {

struct Stream {
  int device;
  void* handle;  // cudaStream_t
};

void lif_forward(const LifParams& p, const LifForward& k, const Stream& on);
void lif_backward_online(const LifParams& p, const LifBackward& k, const Stream& on);
void lif_backward_bptt(const LifParams& p, const LifBackward& k, const Stream& on);
void standardize_forward(const StandardizeForward& k, const Stream& on);
void standardize_backward(const StandardizeBackward& k, const Stream& on);
void empf_forward(const EmpfForward& k, const Stream& on);
void empf_backward(const EmpfBackward& k, const Stream& on);
void empf_potential(const EmpfPotential& k, const Stream& on);
void empf_norm_forward(const EmpfNormForward& k, const Stream& on);
void empf_norm_sums(const EmpfNormSums& k, const Stream& on);
void empf_norm_backward(const EmpfNormBackward& k, const Stream& on);
void osr_forward(const OsrForward& k, const Stream& on);
void osr_reduce(const OsrReduce& k, const Stream& on);
void osr_gradient(const OsrGradient& k, const Stream& on);
void osr_lif_forward(const LifParams& p, const OsrForward& k, const LifForward& lif, const Stream& on);
void osr_lif_reduce(const LifParams& p, const OsrReduce& k, const LifBackward& lif, const Stream& on);
void ots_charge(const LifParams& p, const OtsCharge& k, const Stream& on);
void ots_fire(const LifParams& p, const OtsFire& k, const Stream& on);
void ots_backward(const LifParams& p, const OtsBackward& k, const Stream& on);
void mpdr_forward(const LifParams& p, const MpdrForward& k, const Stream& on);
void mpdr_backward_online(const LifParams& p, const MpdrBackward& k, const Stream& on);
void mpdr_backward_bptt(const LifParams& p, const MpdrBackward& k, const Stream& on);
void binarize_forward(const BinarizeForward& k, const Stream& on);
void binarize_backward(const BinarizeBackward& k, const Stream& on);
void packed_product(const PackedProduct& k, const Stream& on);

// Why the kernels cannot run on `device`, in CUDA's words; empty where they can.
std::string refusal(int device);
int driver_version();  // 0 without a driver

}  // namespace cuda
}  // namespace fastsnn
