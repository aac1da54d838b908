// Runs every kernel on exactly sized heap buffers, ragged sizes included: AddressSanitizer sees one element too far.
#include <cstdio>
#include <initializer_list>
#include <vector>

#include "../../csrc/core/lif.h"
#include "../../csrc/core/trace.h"
#include "../../csrc/cpu/kernels.h"

namespace fastsnn {
namespace generic {
extern const Kernels kernels;
}
}  // namespace fastsnn

using namespace fastsnn;

namespace {

using Buffer = std::vector<char>;

int64_t width(Dtype dtype) { return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2; }
int64_t state_width(Dtype dtype) { return dtype == Dtype::f64 ? 8 : 4; }

// all bytes 0x3f: a finite number of order one in every type
Buffer buffer(int64_t elements, int64_t bytes) { return Buffer(size_t(elements * bytes), char(0x3f)); }

LifParams params(int reset, int trace, int surrogate) {
  return LifParams{0.5, 1.0, 0.0, 1.0, 0.0, 1.0, 4.0, 4.0, reset, trace, surrogate};
}

void lif(const LifParams& p, Dtype dtype, int64_t T, int64_t n, bool with_state, bool with_options) {
  const int64_t w = width(dtype), sw = state_width(dtype);
  Buffer x = buffer(T * n, w), spikes = buffer(T * n, w), g_x = buffer(T * n, w), u_prev = buffer(n, sw);
  Buffer a_prev = buffer(n, sw), e_prev = buffer(n, sw), keep = buffer(n, sw), u = buffer(n, sw), v = buffer(n, sw);
  Buffer u_seq = buffer(T * n, sw), v_seq = buffer(T * n, sw), a = buffer(T * n, sw), e = buffer(n, sw),
         g_v = buffer(n, sw);
  auto given = [&](bool wanted, Buffer& b) -> void* { return wanted ? b.data() : nullptr; };
  generic::kernels.lif_forward(
      p,
      LifForward{T, n, dtype, !with_state, false, x.data(), given(with_state, u_prev), given(with_state, a_prev),
                 given(with_state, e_prev), given(with_options, keep), spikes.data(), u.data(),
                 given(with_options, u_seq), given(!with_options, v), given(with_options, v_seq), a.data(), e.data()},
      2);
  for (void* saved : {T == 1 ? static_cast<void*>(u.data()) : nullptr, static_cast<void*>(nullptr)}) {
    const LifBackward k{T,
                        n,
                        dtype,
                        false,
                        spikes.data(),
                        given(with_options, keep),
                        saved,
                        x.data(),
                        given(with_state, u_prev),
                        given(with_options, g_v),
                        given(with_options, v_seq),
                        g_x.data(),
                        v.data()};
    generic::kernels.lif_backward_online(p, k, 2);
    generic::kernels.lif_backward_bptt(p, k, 2);
  }
}

void standardize(Dtype dtype, int64_t rows, int64_t cols) {
  const int64_t w = width(dtype);
  Buffer weight = buffer(rows * cols, w), gain = buffer(rows, w), out = buffer(rows * cols, w);
  Buffer g_weight = buffer(rows * cols, w), g_gain = buffer(rows, w);
  std::vector<double> mean(rows), inverse(rows);
  const Standardize k{rows, cols, dtype, 1e-4, weight.data(), gain.data(), mean.data(), inverse.data()};
  generic::kernels.standardize_forward(StandardizeForward{k, out.data()}, 2);
  generic::kernels.standardize_backward(StandardizeBackward{k, out.data(), g_weight.data(), g_gain.data()}, 2);
}

}  // namespace

int main(int argc, char**) {
  // the control: with an argument, one element is missing and the sanitizer must say so
  const int64_t missing = argc > 1 ? 1 : 0;
  int runs = 0;
  for (int dtype = 0; dtype < int(Dtype::count); dtype++) {
    for (int64_t n : {1, 17, 255, 2049, 40013}) {
      for (int64_t T : {1, 3, 70}) {
        if (n * T > 200000) continue;
        for (int trace = 0; trace < int(generic::Trace::count); trace++) {
          for (int reset = 0; reset < int(generic::Reset::count); reset++) {
            const int surrogate = (trace * 2 + reset) % int(generic::Surrogate::count);
            for (bool option : {false, true})
              lif(params(reset, trace, surrogate), Dtype(dtype), T, n, option, option), runs++;
          }
        }
      }
    }
    for (int64_t cols : {2, 7, 8, 9, 4609}) standardize(Dtype(dtype), 3, cols), runs++;
  }
  if (missing) {
    Buffer x = buffer(2048, 4), spikes = buffer(2048 - missing, 4);
    generic::kernels.lif_forward(
        params(0, 0, 0),
        LifForward{1, 2048, Dtype::f32, true, false, x.data(), nullptr, nullptr, nullptr, nullptr, spikes.data(),
                   nullptr, nullptr, nullptr, nullptr, nullptr, nullptr},
        1);
  }
  std::printf("%d runs\n", runs);
  return 0;
}
