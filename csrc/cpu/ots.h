#pragma once

#include "../core/ots.h"
#include "lif.h"
#include "stats.h"

// OTS: charge and moments of u in one pass; once the threshold is known, fire, reset and trace in another.
namespace fastsnn {
namespace FASTSNN_ISA {

template <class S>
Lif<S> lif_at(const LifParams& params, const double* threshold) {
  Lif<S> p = lif_of<S>(params);
  p.threshold = S(*threshold);
  return p;
}

template <class S>
void charge_row(const Lif<S>& p, const S* v, const S* x, S* u, int64_t n) {
  potential_row<S, Reset::soft, Untraced>(p, std::numeric_limits<S>::quiet_NaN(), v, x, u, nullptr, n);
}

template <class S>
Moments charge_block(const LifParams& params, const OtsCharge& k, int64_t begin, int64_t end) {
  const Lif<S> p = lif_of<S>(params);
  Scratch<S> scratch(2, end - begin);
  S* buffer = scratch.row();
  const S* start = scratch.row_of(Reset(params.reset) == Reset::hard ? p.v_reset : S(0));
  S* const u_all = static_cast<S*>(k.u);
  Moments all{};
  for (int64_t i = begin; i < end; i += kChunk) {
    const int64_t n = std::min(kChunk, end - i);
    const S* v = at_or(static_cast<const S*>(k.v), i, start);
    S* u = u_all + i;
    charge_row(p, v, load(k.x, k.dtype, i, buffer, n), u, n);
    all = merge(all, row_moments(u, n));
  }
  return all;
}

void ots_charge(const LifParams& p, const OtsCharge& k, int threads) {
  const int64_t blocks = std::max<int64_t>(1, std::min(kStatBlocks, k.n / kGrain));
  std::vector<Moments> parts(blocks);
  with_state(k.dtype, [&](auto zero) {
    parallel_chunks(blocks, 1, k.n, threads, [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; b++) {
        parts[b] = charge_block<decltype(zero)>(p, k, k.n * b / blocks, k.n * (b + 1) / blocks);
      }
    });
  });
  Moments total = parts[0];
  for (int64_t b = 1; b < blocks; b++) total = merge(total, parts[b]);
  k.moments[0] = total.mean;
  k.moments[1] = total.m2;
}

template <class S, Reset reset>
void fire_row(const Lif<S> p, const S* u, const S* keep, const S* a_prev, S* s, S* v, S* a, int64_t n) {
  FASTSNN_SIMD
  for (int64_t i = 0; i < n; i++) {
    const Fired<S> o = fire<reset>(p, u[i], keep[i], a_prev[i]);
    v[i] = o.v;
    a[i] = o.a;
    s[i] = o.s;
  }
}

template <class S>
void fire_chunks(const LifParams& params, const OtsFire& k, int64_t begin, int64_t end) {
  const Lif<S> p = lif_at<S>(params, k.threshold);
  const auto row = Reset(params.reset) == Reset::hard ? fire_row<S, Reset::hard> : fire_row<S, Reset::soft>;
  Scratch<S> scratch(4, end - begin);
  S *s = scratch.row(), *a = scratch.row();
  const S *ones = scratch.row_of(S(1)), *zeros = scratch.row_of(S(0));
  for (int64_t i = begin; i < end; i += kChunk) {
    const int64_t n = std::min(kChunk, end - i);
    row(p, static_cast<const S*>(k.u) + i, at_or(static_cast<const S*>(k.keep), i, ones),
        at_or(static_cast<const S*>(k.trace), i, zeros), store_target(k.spikes, k.dtype, i, s),
        static_cast<S*>(k.v) + i, at_or(static_cast<S*>(k.trace_out), i, a), n);
    store(k.spikes, k.dtype, i, s, n);
  }
}

void ots_fire(const LifParams& p, const OtsFire& k, int threads) {
  with_state(k.dtype, [&](auto zero) {
    parallel_chunks(k.n, kChunk, k.n, threads,
                    [&](int64_t begin, int64_t end) { fire_chunks<decltype(zero)>(p, k, begin, end); });
  });
}

template <class S>
void ots_backward_chunks(const LifParams& params, const OtsBackward& k, int64_t begin, int64_t end) {
  const Lif<S> p = lif_at<S>(params, k.threshold);
  const auto row = pick_surrogate<Online<S>::template Row>(params.surrogate);
  Scratch<S> scratch(3, end - begin);
  S *g_s = scratch.row(), *g_x = scratch.row();
  const S* ones = scratch.row_of(S(1));
  for (int64_t i = begin; i < end; i += kChunk) {
    const int64_t n = std::min(kChunk, end - i);
    row(p, load(k.g_spikes, k.dtype, i, g_s, n), at_or(static_cast<const S*>(k.keep), i, ones),
        static_cast<const S*>(k.u) + i, store_target(k.g_x, k.dtype, i, g_x), n);
    store(k.g_x, k.dtype, i, g_x, n);
  }
}

void ots_backward(const LifParams& p, const OtsBackward& k, int threads) {
  with_state(k.dtype, [&](auto zero) {
    parallel_chunks(k.n, kChunk, k.n, threads,
                    [&](int64_t begin, int64_t end) { ots_backward_chunks<decltype(zero)>(p, k, begin, end); });
  });
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
