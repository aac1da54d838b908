#include "sanitize.h"

#include "../../csrc/cpu/kernels.h"

namespace fastsnn {
namespace generic {
extern const Kernels kernels;
}
}  // namespace fastsnn

namespace {

using namespace fastsnn;

constexpr int kThreads = 2;

template <class... Structs>
struct Run {
  template <Kernel<int, Structs...>* Kernels::* kernel>
  static void run(const Structs&... k) {
    (generic::kernels.*kernel)(k..., kThreads);
  }
};

struct Cpu {
  static constexpr bool kRecomputes = true;
  static constexpr int64_t kMany = 40013, kMost = 200000;  // two threads have a share

#define FASTSNN_RUN(name, ...) static constexpr auto name = &Run<__VA_ARGS__>::run<&Kernels::name>;
  FASTSNN_CPU_KERNELS(FASTSNN_RUN)
#undef FASTSNN_RUN
};

using sanitize::Buffer;

void stgr(Dtype dtype, int64_t n) {
  const int64_t w = sanitize::width(dtype);
  Buffer g(n, w, 0), weight(n, w, 0), average(n, w, 0), previous(n, w, 0), momentum(n, w, 0);
  for (bool first : {true, false}) {
    generic::kernels.stgr_sgd(StgrSgd{n, dtype, first, first, 0.1, 0.5, 0.9, 0.1, 0.9, 1.0, 0.01, g.data(),
                                      weight.data(), average.data(), previous.data(), momentum.data()},
                              kThreads);
  }
}

void steps() {
  for (int64_t n : {1, 17, 255, 2049, 40013}) {
    stgr(Dtype::f32, n);
    stgr(Dtype::f64, n);
  }
}

}  // namespace

int main(int argc, char** argv) {
  steps();
  return sanitize::main<Cpu>(argc, argv);
}
