#pragma once

#include "arguments.h"
#include "binary.h"
#include "empf.h"
#include "mpdr.h"
#include "osr.h"
#include "ots.h"

// Every kernel that all cores have: its name, its neuron's parameters where it has one, and its operands.
#define FASTSNN_KERNELS(X)                           \
  X(lif_forward, LifParams, LifForward)              \
  X(lif_backward_online, LifParams, LifBackward)     \
  X(lif_backward_bptt, LifParams, LifBackwardBptt)   \
  X(mpdr_forward, LifParams, MpdrForward)            \
  X(mpdr_backward_online, LifParams, MpdrBackward)   \
  X(mpdr_backward_bptt, LifParams, MpdrBackwardBptt) \
  X(osr_forward, OsrForward)                         \
  X(osr_reduce, OsrReduce)                           \
  X(osr_gradient, OsrGradient)                       \
  X(osr_lif_forward, LifParams, OsrLifForward)       \
  X(osr_charge, LifParams, OsrCharge)                \
  X(osr_lif_reduce, LifParams, OsrLifReduce)         \
  X(ots_charge, LifParams, OtsCharge)                \
  X(ots_fire, LifParams, OtsFire)                    \
  X(ots_backward, LifParams, OtsBackward)            \
  X(empf_forward, EmpfForward)                       \
  X(empf_backward, EmpfBackward)                     \
  X(empf_potential, EmpfPotential)                   \
  X(empf_norm_forward, EmpfNormForward)              \
  X(empf_norm_sums, EmpfNormSums)                    \
  X(empf_norm_backward, EmpfNormBackward)            \
  X(standardize_forward, StandardizeForward)         \
  X(standardize_backward, StandardizeBackward)       \
  X(binarize_forward, BinarizeForward)               \
  X(binarize_backward, BinarizeBackward)             \
  X(packed_product, PackedProduct)

namespace fastsnn {

// The function of a kernel; Where: the threads or the stream that it runs on.
template <class Where, class... Structs>
using Kernel = void(const Structs&..., Where);

}  // namespace fastsnn
