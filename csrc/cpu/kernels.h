#pragma once

#include "../core/arguments.h"
#include "../core/bits.h"

// What every instruction set provides; the last argument is the number of threads.
namespace fastsnn {

struct Kernels {
  const char* isa;
  void (*lif_forward)(const LifParams&, const LifForward&, int);
  void (*lif_backward_online)(const LifParams&, const LifBackward&, int);
  void (*lif_backward_bptt)(const LifParams&, const LifBackward&, int);
  void (*standardize_forward)(const StandardizeForward&, int);
  void (*standardize_backward)(const StandardizeBackward&, int);
  void (*binarize_forward)(const BinarizeForward&, int);
  void (*binarize_backward)(const BinarizeBackward&, int);
  void (*packed_product)(const PackedProduct&, int);
};

}  // namespace fastsnn
