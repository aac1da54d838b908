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
  static void empf_forward(const EmpfForward& k) { generic::kernels.empf_forward(k, kThreads); }
  static void empf_backward(const EmpfBackward& k) { generic::kernels.empf_backward(k, kThreads); }
  static void empf_potential(const EmpfPotential& k) { generic::kernels.empf_potential(k, kThreads); }
  static void empf_norm_forward(const EmpfNormForward& k) { generic::kernels.empf_norm_forward(k, kThreads); }
  static void empf_norm_sums(const EmpfNormSums& k) { generic::kernels.empf_norm_sums(k, kThreads); }
  static void empf_norm_backward(const EmpfNormBackward& k) { generic::kernels.empf_norm_backward(k, kThreads); }
};

using sanitize::Buffer;

// OSR alone and with a neuron, every moment wanted and none
void osr(Dtype dtype, int64_t outer, int64_t channels, int64_t inner, bool option) {
  const Kernels& core = generic::kernels;
  const int64_t n = outer * channels * inner, w = sanitize::width(dtype), sw = sanitize::state_width(dtype);
  const LifParams p = sanitize::params(0, int(generic::Trace::ottt), 0);
  const Channels k{outer, channels, inner, dtype};
  std::vector<double> a(channels, 1.0), b(channels, 1.0), c(channels, 1.0), mean(channels), m2(channels);
  std::vector<double> sums(2 * channels);
  Buffer x(n, w, 0), y(n, w, 0), u(n, sw, 0), u_prev(n, sw, 0), trace(n, sw, 0), keep(n, sw, 0);
  OsrForward forward{k, x.data(), a.data(), b.data(), c.data(), y.data(), nullptr, nullptr};
  if (option) forward.mean = mean.data(), forward.m2 = m2.data();
  core.osr_forward(forward, Cpu::kThreads);
  const OsrReduce reduce{k, x.data(), y.data(), a.data(), b.data(), sums.data()};
  core.osr_reduce(reduce, Cpu::kThreads);
  core.osr_gradient(OsrGradient{k, x.data(), y.data(), a.data(), b.data(), c.data(), sums.data(), y.data()},
                    Cpu::kThreads);
  LifForward lif{};
  lif.T = 1, lif.n = n, lif.dtype = dtype, lif.spikes = y.data(), lif.u_last = u.data(), lif.trace_seq = trace.data();
  lif.potential = u_prev.data_if(option), lif.keep = keep.data_if(option);
  core.osr_lif_forward(p, forward, lif, Cpu::kThreads);
  LifBackward backward{};
  backward.T = 1, backward.n = n, backward.dtype = dtype, backward.g_spikes = y.data(), backward.u = u.data();
  backward.keep = keep.data_if(option), backward.g_x = y.data();
  core.osr_lif_reduce(p, reduce, backward, Cpu::kThreads);
}

void ots(Dtype dtype, int64_t n, bool option) {
  const Kernels& core = generic::kernels;
  const int64_t w = sanitize::width(dtype), sw = sanitize::state_width(dtype);
  const LifParams p = sanitize::params(0, int(generic::Trace::ottt), 0);
  const double threshold = 1.0;
  std::vector<double> moments(2);
  Buffer x(n, w, 0), spikes(n, w, 0), u(n, sw, 0), v(n, sw, 0), trace(n, sw, 0), keep(n, sw, 0);
  core.ots_charge(p, OtsCharge{n, dtype, x.data(), v.data_if(option), u.data(), moments.data()}, Cpu::kThreads);
  core.ots_fire(p,
                OtsFire{n, dtype, &threshold, u.data(), trace.data_if(option), keep.data_if(option), spikes.data(),
                        v.data(), trace.data()},
                Cpu::kThreads);
  core.ots_backward(p, OtsBackward{n, dtype, &threshold, u.data(), spikes.data(), keep.data_if(option), x.data()},
                    Cpu::kThreads);
}

void statistics() {
  for (int code = 0; code < int(Dtype::count); code++) {
    for (bool option : {false, true}) {
      const Dtype dtype = Dtype(code);
      for (int64_t inner : {1, 17, 2049}) osr(dtype, 9, 5, inner, option), osr(dtype, 1, 1, inner, option);
      osr(dtype, 3, 2100, 1, option);
      for (int64_t n : {1, 17, 2049, 40013}) ots(dtype, n, option);
    }
  }
}

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
  statistics();
  regularisers();
  return sanitize::main<Cpu>(argc, argv);
}
