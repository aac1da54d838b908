#pragma once

#include "../core/arguments.h"
#include "../core/stats.h"

// What every instruction set provides; the last argument is the number of threads.
namespace fastsnn {

struct Kernels {
  const char* isa;
  void (*lif_forward)(const LifParams&, const LifForward&, int);
  void (*lif_backward_online)(const LifParams&, const LifBackward&, int);
  void (*lif_backward_bptt)(const LifParams&, const LifBackward&, int);
  void (*standardize_forward)(const StandardizeForward&, int);
  void (*standardize_backward)(const StandardizeBackward&, int);
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
