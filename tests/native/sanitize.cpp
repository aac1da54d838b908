#include "sanitize.h"

#include "../../csrc/cpu/kernels.h"

namespace fastsnn {
namespace generic {
extern const Kernels kernels;
}
}  // namespace fastsnn

namespace {

using namespace fastsnn;

struct Cpu {
  static constexpr bool kRecomputes = true;
  static constexpr int kThreads = 2;
  static void lif_forward(const LifParams& p, const LifForward& k) { generic::kernels.lif_forward(p, k, kThreads); }
  static void lif_backward_online(const LifParams& p, const LifBackward& k) {
    generic::kernels.lif_backward_online(p, k, kThreads);
  }
  static void lif_backward_bptt(const LifParams& p, const LifBackward& k) {
    generic::kernels.lif_backward_bptt(p, k, kThreads);
  }
  static void standardize_forward(const StandardizeForward& k) { generic::kernels.standardize_forward(k, kThreads); }
  static void standardize_backward(const StandardizeBackward& k) { generic::kernels.standardize_backward(k, kThreads); }
};

using sanitize::Buffer;

void mpdr(Dtype dtype, int reset, int64_t T, int64_t n) {
  const int64_t w = sanitize::width(dtype), sw = sanitize::state_width(dtype);
  const LifParams p = sanitize::params(reset, 0, 1);
  Buffer x(T * n, w, 0), spikes(T * n, w, 0), g_x(T * n, w, 0), g_local(T * n, w, 0), u(n, sw, 0), moments(2 * T, 8, 0);
  LifForward forward{T, n, dtype, true, false, x.data()};
  forward.spikes = spikes.data();
  forward.u_last = u.data();
  generic::kernels.mpdr_forward(p, MpdrForward{forward, moments.data()}, Cpu::kThreads);
  LifBackward backward{T, n, dtype, false, spikes.data()};
  backward.x = x.data();
  backward.g_x = g_x.data();
  const Mpdr target{-60.0, 10.0, 0.002, 0.01};
  const MpdrBackward whole{backward, moments.data(), nullptr}, apart{backward, moments.data(), g_local.data()};
  generic::kernels.mpdr_backward_online(p, target, whole, Cpu::kThreads);
  generic::kernels.mpdr_backward_online(p, target, apart, Cpu::kThreads);
  generic::kernels.mpdr_backward_bptt(p, target, whole, Cpu::kThreads);
}

void stgr(Dtype dtype, int64_t n) {
  const int64_t w = sanitize::width(dtype);
  Buffer g(n, w, 0), weight(n, w, 0), average(n, w, 0), previous(n, w, 0), momentum(n, w, 0);
  for (bool first : {true, false}) {
    generic::kernels.stgr_sgd(StgrSgd{n, dtype, first, first, 0.1, 0.5, 0.9, 0.1, 0.9, 1.0, 0.01, g.data(),
                                      weight.data(), average.data(), previous.data(), momentum.data()},
                              Cpu::kThreads);
  }
}

void regularisers() {
  for (int64_t n : {1, 17, 255, 2049, 40013}) {
    for (int dtype = 0; dtype < int(Dtype::count); dtype++) {
      for (int reset : {0, 1}) mpdr(Dtype(dtype), reset, 3, n);
    }
    stgr(Dtype::f32, n);
    stgr(Dtype::f64, n);
  }
}

}  // namespace

int main(int argc, char** argv) {
  regularisers();
  return sanitize::main<Cpu>(argc, argv);
}
