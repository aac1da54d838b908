#pragma once

#include "../core/mpdr.h"
#include "lif.h"
#include "stats.h"

// LIF with MPDR: the forward's loop also sums u while its chunk is in L1, the backward's adds two coefficients.
namespace fastsnn {
namespace FASTSNN_ISA {

template <class S>
void mpdr_forward_of(const LifParams& params, const MpdrForward& k, int threads) {
  const int64_t chunks = (k.n + kChunk - 1) / kChunk;
  std::vector<Moments> partial(chunks * k.T);
  const auto sum_up = [&](int64_t t, int64_t i, const S* u, int64_t n) {
    partial[t * chunks + i / kChunk] = row_moments(u, n);
  };
  parallel_chunks(k.n, kChunk, k.n * k.T, threads,
                  [&](int64_t begin, int64_t end) { lif_forward_chunks<S>(params, k, begin, end, sum_up); });
  double* out = static_cast<double*>(k.moments);
  for (int64_t t = 0; t < k.T; t++) {
    Moments all{};
    for (int64_t c = 0; c < chunks; c++) all = merge(all, partial[t * chunks + c]);
    out[2 * t] = all.mean;
    out[2 * t + 1] = variance<S>(all);
  }
}

void mpdr_forward(const LifParams& p, const MpdrForward& k, int threads) {
  with_state(k.dtype, [&](auto zero) { mpdr_forward_of<decltype(zero)>(p, k, threads); });
}

template <class S, Surrogate shape>
void mpdr_online_row(const Lif<S> p, const MpdrGradient<S> q, const S* g_s, const S* keep, const S* u, S* g_x,
                     int64_t n) {
  for (int64_t i = 0; i < n; i += kBlock) {
    prefetch_all(i, g_s, u, g_x);
    const int64_t end = std::min(n, i + kBlock);
    FASTSNN_SIMD
    for (int64_t j = i; j < end; j++) {
      const S sg = surrogate<shape>(u[j] - p.threshold, p.height, p.slope);
      g_x[j] = mpdr_online_gradient(p, q, g_s[j], keep[j], u[j], sg);
    }
  }
}

template <class S>
void mpdr_local_row(const Lif<S> p, const MpdrGradient<S> q, const S* u, S* g_local, int64_t n) {
  FASTSNN_SIMD
  for (int64_t i = 0; i < n; i++) g_local[i] = local_gradient(p, q, u[i]);
}

template <class S>
struct MpdrOnline {
  template <Surrogate shape>
  struct Row {
    static constexpr auto fn = mpdr_online_row<S, shape>;
  };
};

template <class S>
std::vector<MpdrGradient<S>> mpdr_gradients(const MpdrBackward& k) {
  std::vector<MpdrGradient<S>> gradients(k.T);
  for (int64_t t = 0; t < k.T; t++) gradients[t] = mpdr_gradient_at<S>(k, t);
  return gradients;
}

template <class S>
void mpdr_backward_online_of(const LifParams& params, const MpdrBackward& k, int threads) {
  const Lif<S> p = lif_of<S>(params);
  const auto gradients = mpdr_gradients<S>(k);
  const auto plain_fn = pick_surrogate<Online<S>::template Row>(params.surrogate);
  const auto row_fn = pick_surrogate<MpdrOnline<S>::template Row>(params.surrogate);
  const auto row = [&](int64_t t, int64_t at, const S* g, const S* keep, const S* u, S* g_x, int64_t n, S* spare) {
    if (!k.g_local) return row_fn(p, gradients[t], g, keep, u, g_x, n);
    plain_fn(p, g, keep, u, g_x, n);
    mpdr_local_row(p, gradients[t], u, store_target(k.g_local, k.dtype, at, spare), n);
    store(k.g_local, k.dtype, at, spare, n);
  };
  parallel_chunks(k.n, kChunk, k.n * k.T, threads,
                  [&](int64_t begin, int64_t end) { lif_backward_online_chunks<S>(params, k, begin, end, row); });
}

void mpdr_backward_online(const LifParams& p, const MpdrBackward& k, int threads) {
  with_state(k.dtype, [&](auto zero) { mpdr_backward_online_of<decltype(zero)>(p, k, threads); });
}

void mpdr_backward_bptt(const LifParams& p, const MpdrBackwardBptt& k, int threads) {
  with_state(k.dtype, [&](auto zero) {
    const auto gradients = mpdr_gradients<decltype(zero)>(k);
    lif_backward_bptt_of<decltype(zero)>(p, k, threads, [&](int64_t t) { return gradients[t]; });
  });
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
