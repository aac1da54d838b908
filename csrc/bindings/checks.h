#pragma once

#include "core.h"

// A core that takes the arguments of every call and runs nothing: what launches of other languages check theirs with.
namespace fastsnn {
namespace bindings {

struct Checks {
  using Where = dlpack::Device;

  static Where where(Arguments& arguments) {
    int64_t device[2]{};  // DLPack's type, and the index
    arguments("where", device);
    return {int32_t(device[0]), int32_t(device[1])};
  }
  static dlpack::Device device(const Where& where) { return where; }

  template <class... Structs>
  static void nothing(const Structs&..., const Where&) {}

#define FASTSNN_CHECKED(kernel, ...) static constexpr auto kernel = &nothing<__VA_ARGS__>;
  FASTSNN_KERNELS(FASTSNN_CHECKED)
#undef FASTSNN_CHECKED
};

}  // namespace bindings
}  // namespace fastsnn
