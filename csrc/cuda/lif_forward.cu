#include "lif.h"

// One launch for a step (T = 1) or a sequence: the state of a thread's neurons stays in registers over T.
namespace fastsnn {
namespace cuda {

template <class T, Reset reset, Trace trace, int V, class S = typename StateOf<T>::type>
__device__ __forceinline__ void forward_neurons(const Lif<S>& p, const LifForward& k, S first_threshold, int64_t at) {
  using P = Parts<T, V>;
  S u[P::count][P::N], a[P::count][P::N], e[P::count][P::N];
#pragma unroll
  for (int c = 0; c < P::count; c++) {
    load_or<S>(k.potential, at + c * P::apart, initial_v<reset>(p), u[c]);
    if constexpr (trace != Trace::none) load_or<S>(k.trace, at + c * P::apart, S(0), a[c]);
    if constexpr (has_ratio(trace)) load_or<S>(k.ratio, at + c * P::apart, S(0), e[c]);
  }
  int64_t row = at;
  // for want of registers t is an int, `at` comes from `row`, and the dropout mask is read again each step
#pragma unroll 1
  for (int t = 0; t < int(k.T); t++, row += k.n) {
    const S threshold_prev = t == 0 ? first_threshold : p.threshold;
    const bool first = t == 0 && k.first;
    auto pack = load_parts<V>(static_cast<const T*>(k.x) + row);  // of x, then of s
#pragma unroll
    for (int c = 0; c < P::count; c++) {
      S x[P::N], keep[P::N];  // x becomes s, then v
      unpack(pack, c, x);
      load_or<S>(k.keep, row - t * k.n + c * P::apart, S(1), keep);
      advance_all<reset, trace>(p, keep, threshold_prev, first, x, u[c], a[c], e[c]);
      repack(x, c, pack);
      if constexpr (trace != Trace::none) store(static_cast<S*>(k.trace_seq) + row + c * P::apart, a[c]);
      store_to<S>(k.u_seq, row + c * P::apart, u[c]);
      if (k.v_seq) store(static_cast<S*>(k.v_seq) + row + c * P::apart, potentials_after<reset>(p, u[c], x));
    }
    store_parts(static_cast<T*>(k.spikes) + row, pack);
  }
  at = row - k.T * k.n;
#pragma unroll
  for (int c = 0; c < P::count; c++) {
    S v[P::N];
    store_to<S>(k.u_last, at + c * P::apart, u[c]);
    if (k.v_last) store(static_cast<S*>(k.v_last) + at + c * P::apart, potentials_after<reset>(p, u[c], v));
    if constexpr (has_ratio(trace)) store_to<S>(k.ratio_last, at + c * P::apart, e[c]);
  }
}

template <class T, Reset reset, Trace trace, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    lif_forward_kernel(const Lif<S> p, const LifForward k, const S first_threshold) {
  for_each_in_parts<T, V>(k.n, [&](int64_t at, auto width) {
    forward_neurons<T, reset, trace, decltype(width)::value>(p, k, first_threshold, at);
  });
}

template <class T, Reset reset, Trace trace>
void lif_forward_as(const LifParams& params, const LifForward& k, const Stream& on) {
  using S = typename StateOf<T>::type;
  const bool aligned = all_aligned(k.x, k.potential, k.trace, k.ratio, k.keep, k.spikes, k.u_last, k.u_seq, k.v_last,
                                   k.v_seq, k.trace_seq, k.ratio_last);
  with_vector<T>(aligned, k.T, k.n, [&](auto width) {
    constexpr int V = decltype(width)::value;
    launch(lif_forward_kernel<T, reset, trace, V, S>, blocks_of<V>(k.n), on, lif_of<S>(params), k,
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
    with_rule(p, [&](auto reset, auto trace) {
      lif_forward_as<decltype(zero), decltype(reset)::value, decltype(trace)::value>(p, k, on);
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
  status = cudaFuncGetAttributes(&attributes, lif_forward_kernel<float, Reset::soft, Trace::none, 1, float>);
  if (status == cudaSuccess) return "";
  return cudaGetErrorString(status) + versions + ", device of compute capability " + capability(device) + ")";
}

}  // namespace cuda
}  // namespace fastsnn
