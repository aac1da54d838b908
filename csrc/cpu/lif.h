#pragma once

#include <limits>

#include "../core/lif.h"
#include "../core/trace.h"
#include "loops.h"

// LIF forward and backward: the T loop runs inside a chunk of neurons whose state stays in L1.
namespace fastsnn {
namespace FASTSNN_ISA {

template <class S>
struct ForwardRow {
  S threshold_prev;  // NaN where the potential was already reset
  bool first;
  const S *x, *keep, *u_prev, *a_prev, *e_prev;
  S *s, *u, *v, *a, *e;
};

template <class S, Reset reset, Trace trace>
void forward_block(const Lif<S> p, const ForwardRow<S> r, int64_t begin, int64_t end) {
  FASTSNN_SIMD
  for (int64_t i = begin; i < end; i++) {
    const S a_prev = trace == Trace::none ? S(0) : r.a_prev[i];
    const S e_prev = has_ratio(trace) ? r.e_prev[i] : S(0);
    const auto o = advance<reset, trace>(p, r.x[i], r.keep[i], r.u_prev[i], a_prev, e_prev, r.threshold_prev, r.first);
    if constexpr (trace != Trace::none) r.a[i] = o.a;
    if constexpr (has_ratio(trace)) r.e[i] = o.e;
    r.u[i] = o.u;
    r.v[i] = o.v;
    r.s[i] = o.s;
  }
}

template <class S, Reset reset, Trace trace>
void forward_row(const Lif<S>& p, const ForwardRow<S>& r, int64_t n) {
  for (int64_t i = 0; i < n; i += kBlock) {
    prefetch_all(i, r.x, r.u_prev, r.s);
    if constexpr (trace != Trace::none) prefetch_all(i, r.a_prev);
    if constexpr (has_ratio(trace)) prefetch_all(i, r.e_prev);
    forward_block<S, reset, trace>(p, r, i, std::min(n, i + kBlock));
  }
}

template <class S>
using ForwardRowFn = void (*)(const Lif<S>&, const ForwardRow<S>&, int64_t);

template <class S, Reset reset>
ForwardRowFn<S> forward_row_of(Trace trace) {
  switch (trace) {
    case Trace::ottt:
      return forward_row<S, reset, Trace::ottt>;
    case Trace::ndot:
      return forward_row<S, reset, Trace::ndot>;
    case Trace::ndot_released:
      return forward_row<S, reset, Trace::ndot_released>;
    default:
      return forward_row<S, reset, Trace::none>;
  }
}

// Where step t of a state goes: into its sequence, to its last value, or nowhere that lasts.
template <class S>
S* row_at(void* sequence, void* last, int64_t t, const LifForward& k, int64_t i, S* scratch) {
  if (sequence) return static_cast<S*>(sequence) + t * k.n + i;
  return t + 1 == k.T ? at_or(static_cast<S*>(last), i, scratch) : scratch;
}

// each(t, i, u, n) follows the step t of a chunk, whose potentials are u.
template <class T, class Each, class S = typename StateOf<T>::type>
void lif_forward_chunks(const LifParams& params, const LifForward& k, int64_t begin, int64_t end, const Each& each) {
  const Lif<S> p = lif_of<S>(params);
  const Trace trace = Trace(params.trace);
  const bool hard = Reset(params.reset) == Reset::hard;
  const auto row_fn = hard ? forward_row_of<S, Reset::hard>(trace) : forward_row_of<S, Reset::soft>(trace);
  const bool given_v = k.potential_is_v || !k.potential;

  Scratch<S> scratch(9, end - begin);
  S *x = scratch.row(), *s = scratch.row(), *u = scratch.row(), *v = scratch.row(), *a = scratch.row();
  S* e = scratch.row();
  const S *ones = scratch.row_of(S(1)), *zeros = scratch.row_of(S(0));
  const S* start = scratch.row_of(hard ? p.v_reset : S(0));

  for (int64_t i = begin; i < end; i += kChunk) {
    const int64_t n = std::min(kChunk, end - i);
    ForwardRow<S> row;
    row.threshold_prev = given_v ? std::numeric_limits<S>::quiet_NaN() : p.threshold;
    row.keep = at_or(static_cast<const S*>(k.keep), i, ones);
    row.u_prev = at_or(static_cast<const S*>(k.potential), i, start);
    row.a_prev = at_or(static_cast<const S*>(k.trace), i, zeros);
    row.e_prev = at_or(static_cast<const S*>(k.ratio), i, zeros);
    row.first = k.first;
    for (int64_t t = 0; t < k.T; t++) {
      T* spikes = static_cast<T*>(k.spikes) + t * k.n + i;
      row.x = load(static_cast<const T*>(k.x) + t * k.n + i, x, n);
      row.s = store_target(spikes, s);
      row.u = row_at(k.u_seq, k.u_last, t, k, i, u);
      row.v = row_at(k.v_seq, k.v_last, t, k, i, v);
      row.a = k.trace_seq ? static_cast<S*>(k.trace_seq) + t * k.n + i : a;
      row.e = row_at(nullptr, k.ratio_last, t, k, i, e);
      row_fn(p, row, n);
      each(t, i, static_cast<const S*>(row.u), n);
      store(spikes, s, n);
      row.threshold_prev = p.threshold;
      row.first = false;
      row.u_prev = row.u;
      row.a_prev = row.a;
      row.e_prev = row.e;
    }
  }
}

void lif_forward(const LifParams& p, const LifForward& k, int threads) {
  const auto ignore = [](auto...) {};
  with_dtype(k.dtype, [&](auto zero) {
    parallel_chunks(k.n, kChunk, k.n * k.T, threads,
                    [&](int64_t begin, int64_t end) { lif_forward_chunks<decltype(zero)>(p, k, begin, end, ignore); });
  });
}

// u[t] of one row, as the forward computed it
template <class S, Reset reset>
void potential_row(const Lif<S>& p, S threshold_prev, const S* u_prev, const S* x, S* u, int64_t n) {
  const Lif<S> q = p;
  FASTSNN_SIMD
  for (int64_t i = 0; i < n; i++) {
    const S v = potential_after<reset>(u_prev[i], u_prev[i] >= threshold_prev, q);
    u[i] = charge(v, x[i], q);
  }
}

// Walks the potentials of a chunk: reads them where they were saved, else recomputes them from x.
template <class T, class S>
struct Potentials {
  const LifBackward& k;
  const Lif<S>& p;
  bool hard;
  int64_t i, n;
  S* x;
  const S* start;

  const S* row(int64_t t, const S* u_prev, S* into) const {
    if (k.u) return static_cast<const S*>(k.u) + t * k.n + i;
    const bool given_v = t == 0 && (k.potential_is_v || !k.potential);
    if (t == 0) u_prev = at_or(static_cast<const S*>(k.potential), i, start);
    const S threshold_prev = given_v ? std::numeric_limits<S>::quiet_NaN() : p.threshold;
    const S* input = load(static_cast<const T*>(k.x) + t * k.n + i, x, n);
    const auto advance = hard ? potential_row<S, Reset::hard> : potential_row<S, Reset::soft>;
    advance(p, threshold_prev, u_prev, input, into, n);
    return into;
  }
};

template <class S, Surrogate shape>
void online_block(const Lif<S> p, const S* g_s, const S* keep, const S* u, S* g_x, int64_t begin, int64_t end) {
  FASTSNN_SIMD
  for (int64_t i = begin; i < end; i++) {
    g_x[i] = online_gradient(p, g_s[i], keep[i], surrogate<shape>(u[i] - p.threshold, p.height, p.slope));
  }
}

template <class S, Surrogate shape>
void online_row(const Lif<S>& p, const S* g_s, const S* keep, const S* u, S* g_x, int64_t n) {
  for (int64_t i = 0; i < n; i += kBlock) {
    prefetch_all(i, g_s, u, g_x);
    online_block<S, shape>(p, g_s, keep, u, g_x, i, std::min(n, i + kBlock));
  }
}

template <class S, Reset reset, Surrogate shape>
void bptt_block(const Lif<S> p, const S* g_s, const S* keep, const S* g_v_out, const S* u, S* g_v, S* g_x,
                int64_t begin, int64_t end) {
  FASTSNN_SIMD
  for (int64_t i = begin; i < end; i++) {
    const S sg = surrogate<shape>(u[i] - p.threshold, p.height, p.slope);
    const S g_u = potential_gradient<reset>(p, g_s[i], keep[i], g_v[i] + g_v_out[i], u[i], sg);
    g_x[i] = p.gain * g_u;
    g_v[i] = p.leak * g_u;
  }
}

template <class S, Reset reset, Surrogate shape>
void bptt_row(const Lif<S>& p, const S* g_s, const S* keep, const S* g_v_out, const S* u, S* g_v, S* g_x, int64_t n) {
  for (int64_t i = 0; i < n; i += kBlock) {
    prefetch_all(i, g_s, u, g_x);
    bptt_block<S, reset, shape>(p, g_s, keep, g_v_out, u, g_v, g_x, i, std::min(n, i + kBlock));
  }
}

template <template <Surrogate> class Pick>
auto pick_surrogate(int shape) {
  switch (Surrogate(shape)) {
    case Surrogate::sigmoid:
      return Pick<Surrogate::sigmoid>::fn;
    case Surrogate::triangle:
      return Pick<Surrogate::triangle>::fn;
    case Surrogate::rectangle:
      return Pick<Surrogate::rectangle>::fn;
    case Surrogate::rect_open:
      return Pick<Surrogate::rect_open>::fn;
    case Surrogate::atan:
      return Pick<Surrogate::atan>::fn;
    case Surrogate::piecewise_exp:
      return Pick<Surrogate::piecewise_exp>::fn;
    case Surrogate::soft_sign:
      return Pick<Surrogate::soft_sign>::fn;
    default:
      return Pick<Surrogate::erf>::fn;
  }
}

template <class S>
struct Online {
  template <Surrogate shape>
  struct Row {
    static constexpr auto fn = online_row<S, shape>;
  };
};
template <class S, Reset reset>
struct Bptt {
  template <Surrogate shape>
  struct Row {
    static constexpr auto fn = bptt_row<S, reset, shape>;
  };
};

// row(t, at, g_s, keep, u, g_x, n, spare) computes step t of a chunk, which lies at `at` in [T, n]; spare: a row's
// room.
template <class T, class Row, class S = typename StateOf<T>::type>
void lif_backward_online_chunks(const LifParams& params, const LifBackward& k, int64_t begin, int64_t end,
                                const Row& row) {
  const Lif<S> p = lif_of<S>(params);
  const bool hard = Reset(params.reset) == Reset::hard;

  Scratch<S> scratch(8, end - begin);
  S *x = scratch.row(), *g_s = scratch.row(), *g_x = scratch.row(), *u_buffer = scratch.row(), *spare = scratch.row();
  const S *ones = scratch.row_of(S(1)), *zeros = scratch.row_of(S(0));
  const S* start = scratch.row_of(hard ? p.v_reset : S(0));

  for (int64_t i = begin; i < end; i += kChunk) {
    const int64_t n = std::min(kChunk, end - i);
    const S* keep = at_or(static_cast<const S*>(k.keep), i, ones);
    const Potentials<T, S> potentials{k, p, hard, i, n, x, start};
    const S* u = nullptr;
    for (int64_t t = 0; t < k.T; t++) {
      const int64_t at = t * k.n + i;
      u = potentials.row(t, u, u_buffer);
      const S* g = k.g_spikes ? load(static_cast<const T*>(k.g_spikes) + at, g_s, n) : zeros;
      T* out = static_cast<T*>(k.g_x) + at;
      row(t, at, g, keep, u, store_target(out, g_x), n, spare);
      store(out, g_x, n);
    }
  }
}

template <class T, class S = typename StateOf<T>::type>
void lif_backward_online_of(const LifParams& params, const LifBackward& k, int threads) {
  const Lif<S> p = lif_of<S>(params);
  const auto row_fn = pick_surrogate<Online<S>::template Row>(params.surrogate);
  const auto row = [&](int64_t, int64_t, const S* g, const S* keep, const S* u, S* g_x, int64_t n, S*) {
    row_fn(p, g, keep, u, g_x, n);
  };
  parallel_chunks(k.n, kChunk, k.n * k.T, threads,
                  [&](int64_t begin, int64_t end) { lif_backward_online_chunks<T>(params, k, begin, end, row); });
}

void lif_backward_online(const LifParams& p, const LifBackward& k, int threads) {
  with_dtype(k.dtype, [&](auto zero) { lif_backward_online_of<decltype(zero)>(p, k, threads); });
}

// Neurons a chunk, so that the recomputed potentials of all T steps stay in L2.
inline int64_t bptt_chunk(int64_t T) {
  constexpr int64_t kBudget = 65536;
  return std::max<int64_t>(64, std::min<int64_t>(kChunk, kBudget / std::max<int64_t>(T, 1)));
}

// row(t, g_s, keep, g_v_out, u, g_v, g_x, n) computes step t of a chunk.
template <class T, class Row, class S = typename StateOf<T>::type>
void lif_backward_bptt_chunks(const LifParams& params, const LifBackward& k, int64_t begin, int64_t end,
                              const Row& row) {
  const Lif<S> p = lif_of<S>(params);
  const bool hard = Reset(params.reset) == Reset::hard;
  const int64_t chunk = std::min(bptt_chunk(k.T), end - begin);
  std::vector<S> u_rows(k.u ? 0 : chunk * k.T);

  Scratch<S> scratch(7, chunk);
  S *x = scratch.row(), *g_s = scratch.row(), *g_x = scratch.row(), *g_v = scratch.row();
  const S *ones = scratch.row_of(S(1)), *zeros = scratch.row_of(S(0));
  const S* start = scratch.row_of(hard ? p.v_reset : S(0));

  for (int64_t i = begin; i < end; i += chunk) {
    const int64_t n = std::min(chunk, end - i);
    const S* keep = at_or(static_cast<const S*>(k.keep), i, ones);
    const Potentials<T, S> potentials{k, p, hard, i, n, x, start};
    if (!k.u) {
      const S* u = nullptr;
      for (int64_t t = 0; t < k.T; t++) u = potentials.row(t, u, u_rows.data() + t * chunk);
    }
    std::copy_n(at_or(static_cast<const S*>(k.g_v_last), i, zeros), n, g_v);
    for (int64_t t = k.T - 1; t >= 0; t--) {
      const int64_t at = t * k.n + i;
      const S* u = k.u ? static_cast<const S*>(k.u) + at : u_rows.data() + t * chunk;
      const S* g = k.g_spikes ? load(static_cast<const T*>(k.g_spikes) + at, g_s, n) : zeros;
      const S* g_v_out = at_or(static_cast<const S*>(k.g_v_seq), at, zeros);
      T* out = static_cast<T*>(k.g_x) + at;
      row(t, g, keep, g_v_out, u, g_v, store_target(out, g_x), n);
      store(out, g_x, n);
    }
    if (k.g_v_first) std::copy_n(g_v, n, static_cast<S*>(k.g_v_first) + i);
  }
}

template <class T, class S = typename StateOf<T>::type>
void lif_backward_bptt_of(const LifParams& params, const LifBackward& k, int threads) {
  const Lif<S> p = lif_of<S>(params);
  const bool hard = Reset(params.reset) == Reset::hard;
  const auto row_fn = hard ? pick_surrogate<Bptt<S, Reset::hard>::template Row>(params.surrogate)
                           : pick_surrogate<Bptt<S, Reset::soft>::template Row>(params.surrogate);
  const auto row = [&](int64_t, const S* g, const S* keep, const S* g_v_out, const S* u, S* g_v, S* g_x, int64_t n) {
    row_fn(p, g, keep, g_v_out, u, g_v, g_x, n);
  };
  parallel_chunks(k.n, bptt_chunk(k.T), k.n * k.T, threads,
                  [&](int64_t begin, int64_t end) { lif_backward_bptt_chunks<T>(params, k, begin, end, row); });
}

void lif_backward_bptt(const LifParams& p, const LifBackward& k, int threads) {
  with_dtype(k.dtype, [&](auto zero) { lif_backward_bptt_of<decltype(zero)>(p, k, threads); });
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
