#include "lif.h"

// One launch for a step (T = 1) or a sequence: the state of a thread's neurons stays in registers over T.
namespace fastsnn {
namespace cuda {

// A thread may hold 64 registers, or fewer threads run at once. What would pass that is not kept over the loop: t is an
// int, `at` is computed again from `row`, and each step reads the dropout mask anew, which is in cache.
template <class T, Reset reset, class R, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void forward_neurons(const Lif<S>& p, const LifForward& k, S first_threshold, int64_t at) {
  S u[V], m[kRows<R>][V];
  load_or<S>(k.potential, at, initial_v<reset>(p), u);
  load_slots<R>(k.slots, at, m);
  int64_t row = at;
#pragma unroll 1
  for (int t = 0; t < int(k.T); t++, row += k.n) {
    const S threshold_prev = t == 0 ? first_threshold : p.threshold;
    const bool first = t == 0 && k.first;
    S x[V], keep[V];  // x becomes s, then v
    load(static_cast<const T*>(k.x) + row, x);
    load_or<S>(k.keep, row - t * k.n, S(1), keep);
    advance_all<reset, R>(p, keep, threshold_prev, first, x, u, m);
    if constexpr (R::traced) store(static_cast<S*>(k.slots_out[0]) + row, m[0]);
    store_to<S>(k.u_seq, row, u);
    store(static_cast<T*>(k.spikes) + row, x);
    if (k.v_seq) store(static_cast<S*>(k.v_seq) + row, potentials_after<reset, R>(p, u, m, x));
  }
  at = row - k.T * k.n;
  S v[V];
  store_to<S>(k.u_last, at, u);
  if (k.v_last) store(static_cast<S*>(k.v_last) + at, potentials_after<reset, R>(p, u, m, v));
  store_slots<R>(k.slots_out, at, m);
}

template <class T, Reset reset, class R, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    lif_forward_kernel(const Lif<S> p, const LifForward k, const S first_threshold) {
  for_each_vector<V>(k.n, [&](int64_t at, auto width) {
    forward_neurons<T, reset, R, decltype(width)::value>(p, k, first_threshold, at);
  });
}

template <class T, Reset reset, class R>
void lif_forward_as(const LifParams& params, const LifForward& k, const Stream& on) {
  using S = typename StateOf<T>::type;
  with_vector<S>(aligned(k), k.T, k.n, [&](auto width) {
    constexpr int V = decltype(width)::value;
    launch(lif_forward_kernel<T, reset, R, V, S>, blocks_of<V>(k.n), on, lif_of<S>(params), k,
           first_threshold<S>(params, k));
  });
}

void lif_forward(const LifParams& p, const LifForward& k, const Stream& on) {
  constexpr int most = std::numeric_limits<int>::max();
  if (k.T > most) {
    throw std::invalid_argument("T is " + std::to_string(k.T) + " steps; allowed on CUDA: at most " +
                                std::to_string(most) + "; cut the sequence");
  }
  with_dtype(k.dtype, [&](auto zero) {
    with_rule(p, [&](auto reset, auto rule) {
      lif_forward_as<decltype(zero), decltype(reset)::value, RuleType<decltype(rule)::value>>(p, k, on);
    });
  });
}

namespace {

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

std::string capability(int device) {
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return std::to_string(major) + "." + std::to_string(minor);
}

}  // namespace

int driver_version() {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  return driver;
}

std::string refusal(int device) {
  int devices = 0, runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  const std::string versions =
      " (driver for CUDA " + version(driver_version()) + ", core built with CUDA " + version(runtime);
  cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) return cudaGetErrorString(status) + versions + ")";
  if (device >= devices) return "CUDA finds " + std::to_string(devices) + " device(s)" + versions + ")";
  const DeviceGuard guard(device);
  cudaFuncAttributes attributes;
  status = cudaFuncGetAttributes(&attributes, lif_forward_kernel<float, Reset::soft, Untraced, 1, float>);
  if (status == cudaSuccess) return "";
  return cudaGetErrorString(status) + versions + ", device of compute capability " + capability(device) + ")";
}

}  // namespace cuda
}  // namespace fastsnn
