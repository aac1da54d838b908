#pragma once

#include <utility>

#include "binary.h"
#include "empf.h"
#include "kernels.h"
#include "mpdr.h"
#include "stats.h"

// A core that takes the operands of every call and runs nothing: what launches of other languages check theirs with.
namespace fastsnn {
namespace bindings {

struct Checks {
  using Execution = std::pair<int, int>;  // DLPack's type of the device, and its index

  static void check(const Execution&) {}
  static dlpack::Device device(const Execution& on) { return {on.first, on.second}; }

#define FASTSNN_CHECKED(kernel) \
  template <class... Arguments> \
  static void kernel(const Arguments&...) {}

  FASTSNN_CHECKED(lif_forward)
  FASTSNN_CHECKED(standardize_forward)
  FASTSNN_CHECKED(standardize_backward)
  FASTSNN_CHECKED(mpdr_forward)
  FASTSNN_CHECKED(empf_forward)
  FASTSNN_CHECKED(empf_backward)
  FASTSNN_CHECKED(empf_potential)
  FASTSNN_CHECKED(empf_norm_forward)
  FASTSNN_CHECKED(empf_norm_sums)
  FASTSNN_CHECKED(empf_norm_backward)
  FASTSNN_CHECKED(binarize_forward)
  FASTSNN_CHECKED(binarize_backward)
  FASTSNN_CHECKED(packed_product)
  FASTSNN_CHECKED(osr_forward)
  FASTSNN_CHECKED(osr_reduce)
  FASTSNN_CHECKED(osr_gradient)
  FASTSNN_CHECKED(osr_lif_forward)
  FASTSNN_CHECKED(osr_lif_reduce)
  FASTSNN_CHECKED(ots_charge)
  FASTSNN_CHECKED(ots_fire)
  FASTSNN_CHECKED(ots_backward)

#undef FASTSNN_CHECKED

  static void lif_backward_online(const LifParams&, const LifBackward&, const Execution&) {}
  static void lif_backward_bptt(const LifParams&, const LifBackward&, const Execution&) {}
  static void mpdr_backward_online(const LifParams&, const MpdrBackward&, const Execution&) {}
  static void mpdr_backward_bptt(const LifParams&, const MpdrBackward&, const Execution&) {}
};

inline void bind_checks(py::module_ m) {
  bind_kernels<Checks>(m);
  bind_empf<Checks>(m);
  bind_stats<Checks>(m);
  bind_mpdr<Checks>(m);
  bind_binary<Checks>(m);
}

}  // namespace bindings
}  // namespace fastsnn
