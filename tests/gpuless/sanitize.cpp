#include "../native/sanitize.h"

#include "../../csrc/cuda/kernels.h"

namespace {

using namespace fastsnn;

constexpr cuda::Stream kStream{0, nullptr};

template <class... Structs>
struct Run {
  template <Kernel<const cuda::Stream&, Structs...>* kernel>
  static void run(const Structs&... k) {
    kernel(k..., kStream);
  }
};

struct Cuda {
  static constexpr bool kRecomputes = false;
  static constexpr int64_t kMany = 4609, kMost = 50000;  // several blocks, and fibres are slow

#define FASTSNN_RUN(name, ...) static constexpr auto name = &Run<__VA_ARGS__>::run<&cuda::name>;
  FASTSNN_KERNELS(FASTSNN_RUN)
#undef FASTSNN_RUN
};

}  // namespace

int main(int argc, char** argv) { return sanitize::main<Cuda>(argc, argv); }
