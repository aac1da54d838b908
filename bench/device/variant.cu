// LIF's CUDA kernels as C functions, with settings of their own: variants.py compiles several and times them in turn.
#include <exception>

#include "cuda/kernels.h"

#define VARIANT extern "C" __attribute__((visibility("default")))

using namespace fastsnn;

namespace {

// OTTT's defaults but for reset, trace and surrogate
LifParams params(int reset, int trace, int surrogate) { return {0.5, 1, 0, 1, 0, 1, 4, 4, reset, trace, surrogate}; }

template <class F>
const char* said(const F& f) {
  static thread_local std::string error;
  try {
    f();
    return nullptr;
  } catch (const std::exception& e) {
    error = e.what();
    return error.c_str();
  }
}

}  // namespace

VARIANT const char* variant_forward(int dtype, int trace, int64_t T, int64_t n, const void* x, const void* u,
                                    const void* a, const void* e, void* spikes, void* u_last, void* u_seq,
                                    void* trace_seq, void* ratio_last, void* stream) {
  LifForward k{};
  k.T = T, k.n = n, k.dtype = Dtype(dtype);
  k.x = x, k.potential = u, k.trace = a, k.ratio = e;
  k.spikes = spikes, k.u_last = u_last, k.u_seq = u_seq, k.trace_seq = trace_seq, k.ratio_last = ratio_last;
  return said([&] { cuda::lif_forward(params(0, trace, 0), k, {0, stream}); });
}

VARIANT const char* variant_backward(int dtype, int surrogate, bool bptt, int64_t T, int64_t n, const void* g,
                                     const void* u, void* g_x, void* stream) {
  LifBackward k{};
  k.T = T, k.n = n, k.dtype = Dtype(dtype);
  k.g_spikes = g, k.u = u, k.g_x = g_x;
  return said(
      [&] { (bptt ? cuda::lif_backward_bptt : cuda::lif_backward_online)(params(0, 0, surrogate), k, {0, stream}); });
}
