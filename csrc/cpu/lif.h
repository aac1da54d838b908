#pragma once

#include <limits>

#include "../core/lif.h"
#include "loops.h"

// LIF forward and backward: the T loop runs inside a chunk of neurons whose state stays in L1.
namespace fastsnn {
namespace FASTSNN_ISA {

template <class S>
struct ForwardRow {
  S threshold_prev;  // NaN where the potential was already reset
  bool first;
  const S *x, *keep, *u_prev;
  const S* m_prev[kMostSlots];
  S *s, *u, *v;
  S* m[kMostSlots];
};

template <class S, Reset reset, class R>
void forward_block(const Lif<S> p, const ForwardRow<S> r, int64_t begin, int64_t end) {
  FASTSNN_SIMD
  for (int64_t i = begin; i < end; i++) {
    Slots<R, S> m{};
    for (int j = 0; j < R::count; j++) m.at[j] = r.m_prev[j][i];
    const auto o = advance<reset, R>(p, r.x[i], r.keep[i], r.u_prev[i], r.threshold_prev, r.first, m);
    for (int j = 0; j < R::count; j++) r.m[j][i] = m.at[j];
    r.u[i] = o.u;
    r.v[i] = o.v;
    r.s[i] = o.s;
  }
}

template <class S, Reset reset, class R>
void forward_row(const Lif<S>& p, const ForwardRow<S>& r, int64_t n) {
  for (int64_t i = 0; i < n; i += kBlock) {
    prefetch_all(i, r.x, r.u_prev, r.s);
    for (int j = 0; j < R::count; j++) prefetch_all(i, r.m_prev[j]);
    forward_block<S, reset, R>(p, r, i, std::min(n, i + kBlock));
  }
}

template <class S>
using ForwardRowFn = void (*)(const Lif<S>&, const ForwardRow<S>&, int64_t);

template <class S>
ForwardRowFn<S> forward_row_of(const LifParams& params) {
  ForwardRowFn<S> row = nullptr;
  with_rule(params.rule, Reset(params.reset) == Reset::hard, [&](auto rule, auto reset) {
    row = forward_row<S, decltype(reset)::value, RuleType<decltype(rule)::value>>;
  });
  return row;
}

// Where step t of a state goes: into its sequence, to its last value, or nowhere that lasts.
template <class S>
S* row_at(void* sequence, void* last, int64_t t, const LifForward& k, int64_t i, S* scratch) {
  if (sequence) return static_cast<S*>(sequence) + t * k.n + i;
  return t + 1 == k.T ? at_or(static_cast<S*>(last), i, scratch) : scratch;
}

// each(t, i, u, n) follows the step t of a chunk, whose potentials are u.
template <class S, class Each>
void lif_forward_chunks(const LifParams& params, const LifForward& k, int64_t begin, int64_t end, const Each& each) {
  const Lif<S> p = lif_of<S>(params);
  const bool hard = Reset(params.reset) == Reset::hard;
  const auto row_fn = forward_row_of<S>(params);
  const auto& rule = kRules[params.rule];
  const bool given_v = k.potential_is_v || !k.potential;

  Scratch<S> scratch(7 + rule.count, end - begin);
  S *x = scratch.row(), *s = scratch.row(), *u = scratch.row(), *v = scratch.row();
  S* m[kMostSlots];
  for (int j = 0; j < rule.count; j++) m[j] = scratch.row();
  const S *ones = scratch.row_of(S(1)), *zeros = scratch.row_of(S(0));
  const S* start = scratch.row_of(hard ? p.v_reset : S(0));

  for (int64_t i = begin; i < end; i += kChunk) {
    const int64_t n = std::min(kChunk, end - i);
    ForwardRow<S> row;
    row.threshold_prev = given_v ? std::numeric_limits<S>::quiet_NaN() : p.threshold;
    row.keep = at_or(static_cast<const S*>(k.keep), i, ones);
    row.u_prev = at_or(static_cast<const S*>(k.potential), i, start);
    for (int j = 0; j < rule.count; j++) row.m_prev[j] = at_or(static_cast<const S*>(k.slots[j]), i, zeros);
    row.first = k.first;
    for (int64_t t = 0; t < k.T; t++) {
      const int64_t at = t * k.n + i;
      row.x = load(k.x, k.dtype, at, x, n);
      row.s = store_target(k.spikes, k.dtype, at, s);
      row.u = row_at(k.u_seq, k.u_last, t, k, i, u);
      row.v = row_at(k.v_seq, k.v_last, t, k, i, v);
      for (int j = 0; j < rule.count; j++) {
        const bool every_step = rule.slots[j].every_step;
        row.m[j] = row_at(every_step ? k.slots_out[j] : nullptr, k.slots_out[j], t, k, i, m[j]);
      }
      row_fn(p, row, n);
      each(t, i, static_cast<const S*>(row.u), n);
      store(k.spikes, k.dtype, at, s, n);
      row.threshold_prev = p.threshold;
      row.first = false;
      row.u_prev = row.u;
      for (int j = 0; j < rule.count; j++) row.m_prev[j] = row.m[j];
    }
  }
}

void lif_forward(const LifParams& p, const LifForward& k, int threads) {
  const auto ignore = [](auto...) {};
  with_state(k.dtype, [&](auto zero) {
    parallel_chunks(k.n, kChunk, k.n * k.T, threads,
                    [&](int64_t begin, int64_t end) { lif_forward_chunks<decltype(zero)>(p, k, begin, end, ignore); });
  });
}

// u[t] of one row, as the forward computed it; the rule's slots move on in place
template <class S, Reset reset, class R>
void potential_row(const Lif<S>& p, S threshold_prev, const S* u_prev, const S* x, S* u, S* const* slots, int64_t n) {
  const Lif<S> q = p;
  S* own[kMostSlots]{};
  for (int j = 0; j < R::count; j++) own[j] = slots[j];
  FASTSNN_SIMD
  for (int64_t i = 0; i < n; i++) {
    Slots<R, S> m{};
    for (int j = 0; j < R::count; j++) m.at[j] = own[j][i];
    u[i] = advance<reset, R>(q, x[i], S(1), u_prev[i], threshold_prev, false, m).u;
    for (int j = 0; j < R::count; j++) own[j][i] = m.at[j];
  }
}

template <class S>
using PotentialRowFn = void (*)(const Lif<S>&, S, const S*, const S*, S*, S* const*, int64_t);

template <class S>
PotentialRowFn<S> potential_row_of(const LifParams& params) {
  PotentialRowFn<S> row = nullptr;
  with_rule(params.rule, Reset(params.reset) == Reset::hard, [&](auto rule, auto reset) {
    row = potential_row<S, decltype(reset)::value, typename RuleType<decltype(rule)::value>::Dynamics>;
  });
  return row;
}

// A chunk of an optional array
template <class S>
void copy_or_zero(const void* from, int64_t i, int64_t n, S* to) {
  if (from) {
    std::copy_n(static_cast<const S*>(from) + i, n, to);
  } else {
    std::fill_n(to, n, S(0));
  }
}

// Walks the potentials of a chunk: reads them where they were saved, else recomputes them from x.
template <class S>
class Potentials {
 public:
  Potentials(const LifParams& params, const LifBackward& k, int64_t most)
      : k_(k),
        p_(lif_of<S>(params)),
        driving_(kRules[k.rule].driving),
        advance_(potential_row_of<S>(params)),
        scratch_(2 + driving_, most) {
    x_ = scratch_.row();
    start_ = scratch_.row_of(Reset(params.reset) == Reset::hard ? p_.v_reset : S(0));
    for (int j = 0; j < driving_; j++) slots_[j] = scratch_.row();
  }

  void begin(int64_t i, int64_t n) {
    i_ = i, n_ = n;
    if (k_.u) return;
    for (int j = 0; j < driving_; j++) copy_or_zero(k_.slots[j], i, n, slots_[j]);
  }

  const S* row(int64_t t, const S* u_prev, S* into) const {
    if (k_.u) return static_cast<const S*>(k_.u) + t * k_.n + i_;
    const bool given_v = t == 0 && (k_.potential_is_v || !k_.potential);
    if (t == 0) u_prev = at_or(static_cast<const S*>(k_.potential), i_, start_);
    const S threshold_prev = given_v ? std::numeric_limits<S>::quiet_NaN() : p_.threshold;
    const S* input = load(k_.x, k_.dtype, t * k_.n + i_, x_, n_);
    advance_(p_, threshold_prev, u_prev, input, into, slots_, n_);
    return into;
  }

 private:
  const LifBackward& k_;
  const Lif<S> p_;
  const int driving_;
  PotentialRowFn<S> advance_;
  Scratch<S> scratch_;
  S* x_;
  const S* start_;
  S* slots_[kMostSlots];
  int64_t i_ = 0, n_ = 0;
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

template <class S>
struct BackwardRow {
  const S *g_s, *keep, *g_v_out, *u;
  S *g_x, *g_v, *g_m[kMostSlots];  // those that go back in time: of v, and of slots that spikes depend on
};

template <class S, Reset reset, class R, class More, Surrogate shape>
void bptt_block(const Lif<S> p, const More more, const BackwardRow<S> r, int64_t begin, int64_t end) {
  FASTSNN_SIMD
  for (int64_t i = begin; i < end; i++) {
    Slots<R, S> g_m{};
    for (int j = 0; j < R::count; j++) g_m.at[j] = r.g_m[j][i];
    const S sg = surrogate<shape>(r.u[i] - p.threshold, p.height, p.slope);
    S g_v = r.g_v[i] + r.g_v_out[i];
    r.g_x[i] = step_back<reset>(p, more, r.g_s[i] * r.keep[i], r.u[i], sg, g_v, g_m);
    r.g_v[i] = g_v;
    for (int j = 0; j < R::count; j++) r.g_m[j][i] = g_m.at[j];
  }
}

template <class S, Reset reset, class R, class More, Surrogate shape>
void bptt_row(const Lif<S>& p, const More& more, const BackwardRow<S>& r, int64_t n) {
  for (int64_t i = 0; i < n; i += kBlock) {
    prefetch_all(i, r.g_s, r.u, r.g_x);
    bptt_block<S, reset, R, More, shape>(p, more, r, i, std::min(n, i + kBlock));
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
template <class S, Reset reset, class R, class More>
struct Bptt {
  template <Surrogate shape>
  struct Row {
    static constexpr auto fn = bptt_row<S, reset, R, More, shape>;
  };
};

// The row that goes back in time, of a rule and a surrogate; More: what else g_u has
template <class S, class More>
auto bptt_row_of(const LifParams& params) {
  void (*row)(const Lif<S>&, const More&, const BackwardRow<S>&, int64_t) = nullptr;
  with_dynamics(params.rule, Reset(params.reset) == Reset::hard, [&](auto rule, auto reset) {
    using Rows = Bptt<S, decltype(reset)::value, RuleType<decltype(rule)::value>, More>;
    row = pick_surrogate<Rows::template Row>(params.surrogate);
  });
  return row;
}

// row(t, at, g_s, keep, u, g_x, n, spare) computes step t of a chunk, which lies at `at` in [T, n]; spare: a row's
// room.
template <class S, class Row>
void lif_backward_online_chunks(const LifParams& params, const LifBackward& k, int64_t begin, int64_t end,
                                const Row& row) {
  Scratch<S> scratch(6, end - begin);
  S *g_s = scratch.row(), *g_x = scratch.row(), *u_buffer = scratch.row(), *spare = scratch.row();
  const S *ones = scratch.row_of(S(1)), *zeros = scratch.row_of(S(0));
  Potentials<S> potentials(params, k, end - begin);

  for (int64_t i = begin; i < end; i += kChunk) {
    const int64_t n = std::min(kChunk, end - i);
    const S* keep = at_or(static_cast<const S*>(k.keep), i, ones);
    potentials.begin(i, n);
    const S* u = nullptr;
    for (int64_t t = 0; t < k.T; t++) {
      const int64_t at = t * k.n + i;
      u = potentials.row(t, u, u_buffer);
      const S* g = k.g_spikes ? load(k.g_spikes, k.dtype, at, g_s, n) : zeros;
      row(t, at, g, keep, u, store_target(k.g_x, k.dtype, at, g_x), n, spare);
      store(k.g_x, k.dtype, at, g_x, n);
    }
  }
}

template <class S>
void lif_backward_online_of(const LifParams& params, const LifBackward& k, int threads) {
  const Lif<S> p = lif_of<S>(params);
  const auto row_fn = pick_surrogate<Online<S>::template Row>(params.surrogate);
  const auto row = [&](int64_t, int64_t, const S* g, const S* keep, const S* u, S* g_x, int64_t n, S*) {
    row_fn(p, g, keep, u, g_x, n);
  };
  parallel_chunks(k.n, kChunk, k.n * k.T, threads,
                  [&](int64_t begin, int64_t end) { lif_backward_online_chunks<S>(params, k, begin, end, row); });
}

void lif_backward_online(const LifParams& p, const LifBackward& k, int threads) {
  with_state(k.dtype, [&](auto zero) { lif_backward_online_of<decltype(zero)>(p, k, threads); });
}

// Neurons a chunk, so that the recomputed potentials of all T steps stay in L2.
inline int64_t bptt_chunk(int64_t T) {
  constexpr int64_t kBudget = 65536;
  return std::max<int64_t>(64, std::min<int64_t>(kChunk, kBudget / std::max<int64_t>(T, 1)));
}

// more(t): what else g_u of step t has
template <class S, class More>
void lif_backward_bptt_chunks(const LifParams& params, const LifBackward& k, int64_t begin, int64_t end,
                              const More& more) {
  const Lif<S> p = lif_of<S>(params);
  const auto row_fn = bptt_row_of<S, decltype(more(0))>(params);
  const int64_t chunk = std::min(bptt_chunk(k.T), end - begin);
  const int driving = kRules[k.rule].driving;
  std::vector<S> u_rows(k.u ? 0 : chunk * k.T);

  Scratch<S> scratch(5 + driving, chunk);
  S *g_s = scratch.row(), *g_x = scratch.row();
  const S *ones = scratch.row_of(S(1)), *zeros = scratch.row_of(S(0));
  BackwardRow<S> row;
  row.g_v = scratch.row();
  for (int j = 0; j < driving; j++) row.g_m[j] = scratch.row();
  Potentials<S> potentials(params, k, chunk);

  for (int64_t i = begin; i < end; i += chunk) {
    const int64_t n = std::min(chunk, end - i);
    row.keep = at_or(static_cast<const S*>(k.keep), i, ones);
    potentials.begin(i, n);
    if (!k.u) {
      const S* u = nullptr;
      for (int64_t t = 0; t < k.T; t++) u = potentials.row(t, u, u_rows.data() + t * chunk);
    }
    copy_or_zero(k.g_v_last, i, n, row.g_v);
    for (int j = 0; j < driving; j++) copy_or_zero(k.g_slots_last[j], i, n, row.g_m[j]);
    for (int64_t t = k.T - 1; t >= 0; t--) {
      const int64_t at = t * k.n + i;
      row.u = k.u ? static_cast<const S*>(k.u) + at : u_rows.data() + t * chunk;
      row.g_s = k.g_spikes ? load(k.g_spikes, k.dtype, at, g_s, n) : zeros;
      row.g_v_out = at_or(static_cast<const S*>(k.g_v_seq), at, zeros);
      row.g_x = store_target(k.g_x, k.dtype, at, g_x);
      row_fn(p, more(t), row, n);
      store(k.g_x, k.dtype, at, g_x, n);
    }
    if (k.g_v_first) std::copy_n(row.g_v, n, static_cast<S*>(k.g_v_first) + i);
    for (int j = 0; j < driving; j++) {
      if (k.g_slots_first[j]) std::copy_n(row.g_m[j], n, static_cast<S*>(k.g_slots_first[j]) + i);
    }
  }
}

template <class S, class More>
void lif_backward_bptt_of(const LifParams& params, const LifBackward& k, int threads, const More& more) {
  parallel_chunks(k.n, bptt_chunk(k.T), k.n * k.T, threads,
                  [&](int64_t begin, int64_t end) { lif_backward_bptt_chunks<S>(params, k, begin, end, more); });
}

void lif_backward_bptt(const LifParams& p, const LifBackwardBptt& k, int threads) {
  with_state(k.dtype, [&](auto zero) {
    lif_backward_bptt_of<decltype(zero)>(p, k, threads, [](int64_t) { return Nothing(); });
  });
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
