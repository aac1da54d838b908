#include "dispatch.h"

namespace fastsnn {

namespace generic {
extern const Kernels kernels;
}
#if defined(FASTSNN_X86_ISAS)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

namespace {

std::vector<const Kernels*> usable() {
  std::vector<const Kernels*> found;
#if defined(FASTSNN_X86_ISAS)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    found.push_back(&avx512::kernels);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2::kernels);
#endif
  found.push_back(&generic::kernels);
  return found;
}

const Kernels*& active() {
  static const Kernels* kernels = usable().front();
  return kernels;
}

}  // namespace

std::vector<std::string> usable_isas() {
  std::vector<std::string> names;
  for (const Kernels* k : usable()) names.emplace_back(k->isa);
  return names;
}

const Kernels& active_kernels() { return *active(); }

bool choose_isa(const std::string& isa) {
  for (const Kernels* k : usable()) {
    if (isa == k->isa) {
      active() = k;
      return true;
    }
  }
  return false;
}

}  // namespace fastsnn
