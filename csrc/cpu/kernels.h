#pragma once

#include "../core/arguments.h"
#include "../core/bits.h"
#include "../core/empf.h"
#include "../core/mpdr.h"
#include "../core/stats.h"
#include "../core/stgr.h"

// What every instruction set provides; the last argument is the number of threads.
namespace fastsnn {

struct Kernels {
  const char* isa;
  void (*lif_forward)(const LifParams&, const LifForward&, int);
  void (*lif_backward_online)(const LifParams&, const LifBackward&, int);
  void (*lif_backward_bptt)(const LifParams&, const LifBackward&, int);
  void (*standardize_forward)(const StandardizeForward&, int);
  void (*standardize_backward)(const StandardizeBackward&, int);
  void (*mpdr_forward)(const LifParams&, const MpdrForward&, int);
  void (*mpdr_backward_online)(const LifParams&, const MpdrBackward&, int);
  void (*mpdr_backward_bptt)(const LifParams&, const MpdrBackward&, int);
  void (*stgr_sgd)(const StgrSgd&, int);
  void (*empf_forward)(const EmpfForward&, int);
  void (*empf_backward)(const EmpfBackward&, int);
  void (*empf_potential)(const EmpfPotential&, int);
  void (*empf_norm_forward)(const EmpfNormForward&, int);
  void (*empf_norm_sums)(const EmpfNormSums&, int);
  void (*empf_norm_backward)(const EmpfNormBackward&, int);
  void (*binarize_forward)(const BinarizeForward&, int);
  void (*binarize_backward)(const BinarizeBackward&, int);
  void (*packed_product)(const PackedProduct&, int);
  void (*osr_forward)(const OsrForward&, int);
  void (*osr_reduce)(const OsrReduce&, int);
  void (*osr_gradient)(const OsrGradient&, int);
  void (*osr_lif_forward)(const LifParams&, const OsrForward&, const LifForward&, int);
  void (*osr_lif_reduce)(const LifParams&, const OsrReduce&, const LifBackward&, int);
  void (*ots_charge)(const LifParams&, const OtsCharge&, int);
  void (*ots_fire)(const LifParams&, const OtsFire&, int);
  void (*ots_backward)(const LifParams&, const OtsBackward&, int);
};

}  // namespace fastsnn
