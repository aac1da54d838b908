#pragma once

#include "lif.h"
#include "ots.h"
#include "stats.h"

// OSR, alone and with the LIF behind it: one pass over x in forward, two in backward. Under OTS the forward charges the
// neuron and sums u, and what fires is another pass.
namespace fastsnn {
namespace FASTSNN_ISA {

// The affine map, in the state's type
template <class S, bool last>
class AffineMap {
 public:
  // own: by the step's own statistics
  AffineMap(const OsrForward& k, bool own) : center_(k.channels), factor_(k.channels), shift_(k.channels) {
    for (int64_t c = 0; c < k.channels; c++) {
      const Affine affine = affine_of(k, c, own);
      center_[c] = S(affine.center);
      factor_[c] = S(affine.factor);
      shift_[c] = S(element(k.bias, k.learned, c));
    }
  }

  void row(int64_t c, int64_t n, const S* x, S* y) const {
    const auto center = of_panel<last>(center_.data(), c);
    const auto factor = of_panel<last>(factor_.data(), c);
    const auto shift = of_panel<last>(shift_.data(), c);
    FASTSNN_SIMD
    for (int64_t i = 0; i < n; i++) y[i] = normalize(x[i], center[i], factor[i], shift[i]);
  }

 private:
  std::vector<S> center_, factor_, shift_;
};

template <class S, bool last>
class NormalizePanel {
 public:
  using Map = AffineMap<S, last>;
  NormalizePanel(const Map& map, const OsrForward& k)
      : map_(map), k_(k), scratch_(1, panel_size(k)), buffer_(scratch_.row()) {}

  void operator()(int64_t c, int64_t at, int64_t n, const S* x) {
    S* y = store_target(k_.y, k_.dtype, at, buffer_);
    prefetch_panel(n, y);
    map_.row(c, n, x, y);
    store(k_.y, k_.dtype, at, buffer_, n);
  }

 private:
  const Map& map_;
  const OsrForward& k_;
  Scratch<S> scratch_;
  S* buffer_;
};

// One step of the neuron on y, which stays in L1
template <class S, bool last>
class LifPanel {
 public:
  using Map = AffineMap<S, last>;
  LifPanel(const Map& map, const OsrForward& norm, const LifParams& params, const LifForward& k)
      : map_(map), p_(lif_of<S>(params)), k_(k), scratch_(7 + kRules[k.rule].count, panel_size(norm)) {
    const bool hard = Reset(params.reset) == Reset::hard;
    row_ = forward_row_of<S>(params);
    const bool given_v = k.potential_is_v || !k.potential;
    threshold_prev_ = given_v ? std::numeric_limits<S>::quiet_NaN() : p_.threshold;
    for (S** row : {&y_, &s_, &u_, &v_}) *row = scratch_.row();
    for (int j = 0; j < kRules[k.rule].count; j++) m_[j] = scratch_.row();
    start_ = scratch_.row_of(hard ? p_.v_reset : S(0));
    ones_ = scratch_.row_of(S(1));
    zeros_ = scratch_.row_of(S(0));
  }

  void operator()(int64_t c, int64_t at, int64_t n, const S* x) {
    map_.row(c, n, x, y_);
    ForwardRow<S> row;
    row.threshold_prev = threshold_prev_;
    row.first = k_.first;
    row.x = y_;
    row.keep = at_or(static_cast<const S*>(k_.keep), at, ones_);
    row.u_prev = at_or(static_cast<const S*>(k_.potential), at, start_);
    for (int j = 0; j < kRules[k_.rule].count; j++) {
      row.m_prev[j] = at_or(static_cast<const S*>(k_.slots[j]), at, zeros_);
      row.m[j] = at_or(static_cast<S*>(k_.slots_out[j]), at, m_[j]);
    }
    row.s = store_target(k_.spikes, k_.dtype, at, s_);
    row.u = at_or(static_cast<S*>(k_.u_last), at, u_);
    row.v = at_or(static_cast<S*>(k_.v_last), at, v_);
    row_(p_, row, n);
    store(k_.spikes, k_.dtype, at, s_, n);
  }

 private:
  const Map& map_;
  Lif<S> p_;
  const LifForward& k_;
  ForwardRowFn<S> row_;
  S threshold_prev_;
  Scratch<S> scratch_;
  S *y_, *s_, *u_, *v_, *m_[kMostSlots];
  const S *start_, *ones_, *zeros_;
};

// u of the neuron on y, and its sums over a block
template <class S, bool last>
class ChargePanel {
 public:
  using Map = AffineMap<S, last>;
  ChargePanel(const Map& map, const LifParams& params, const OsrCharge& k, RelativeSums& sums)
      : map_(map), p_(lif_of<S>(params)), k_(k), sums_(sums), scratch_(2, panel_size(k)) {
    y_ = scratch_.row();
    start_ = scratch_.row_of(Reset(params.reset) == Reset::hard ? p_.v_reset : S(0));
    sums_ = RelativeSums{};
  }

  void operator()(int64_t c, int64_t at, int64_t n, const S* x) {
    map_.row(c, n, x, y_);
    const S* v = at_or(static_cast<const S*>(k_.v), at, start_);
    S* u = static_cast<S*>(k_.u) + at;
    prefetch_panel(n, v, u);
    charge_row(p_, v, y_, u, n);
    if (sums_.n == 0.0) sums_.origin = u[0];
    add_moments<false>(n, u, &sums_.origin, &sums_.sum, &sums_.squares);
    sums_.n += double(n);
  }

 private:
  const Map& map_;
  Lif<S> p_;
  const OsrCharge& k_;
  RelativeSums& sums_;
  Scratch<S> scratch_;
  S* y_;
  const S* start_;
};

// make_panel(block) makes what a block runs on its panels; with `sums`, those of x - origin and of its square.
template <class S, bool last, class MakePanel>
void each_block(const OsrForward& k, int threads, BlockSums* sums, const MakePanel& make_panel) {
  parallel_blocks(k, threads, [&](int64_t block, int64_t begin, int64_t end) {
    auto panel = make_panel(block);
    std::vector<double> origin(k.channels);
    origins(k, k.x, begin, origin.data());
    Scratch<S> scratch(1, panel_size(k));
    S* buffer = scratch.row();
    for_each_panel<last>(k, begin, end, [&](int64_t c, int64_t at, int64_t n) {
      const S* x = load(k.x, k.dtype, at, buffer, n);
      prefetch_panel(n, x);
      if (sums) add_moments<last>(n, x, origin.data() + c, sums->first(block) + c, sums->second(block) + c);
      panel(c, at, n, x);
    });
  });
}

// Settles the moments among the statistics; whether the step's own normalise it.
inline bool settle_all(const OsrForward& k) {
  Verdict all{false, false};
  for (int64_t c = 0; c < k.channels; c++) {
    const Moments own{double(k.outer * k.inner), row_of(k, Row::mean)[c], row_of(k, Row::m2)[c]};
    const Verdict verdict = verdict_of(k, c, own);
    all.exceeded = all.exceeded || verdict.exceeded;
    all.refused = all.refused || verdict.refused;
  }
  all.exceeded = all.exceeded && !all.refused;
  for (int64_t c = 0; c < k.channels; c++) settle(k, c, all);
  return all.exceeded;
}

// One pass, in which x's moments are summed, too; another by its own statistics where they differ too much.
// make_panel(map, block) makes what a block runs on its panels.
template <class S, bool last, class MakePanel>
void forward_passes(const OsrForward& k, int threads, const MakePanel& make_panel) {
  const auto pass = [&](bool own, BlockSums* sums) {
    const AffineMap<S, last> map(k, own);
    each_block<S, last>(k, threads, sums, [&](int64_t block) { return make_panel(map, block); });
  };
  if (!k.statistics) return pass(false, nullptr);
  BlockSums sums(k);
  pass(false, &sums);
  merge_blocks(k, k.x, sums, row_of(k, Row::mean), row_of(k, Row::m2));
  if (settle_all(k)) pass(true, nullptr);
}

template <class F>
void with_state_and_layout(const Channels& k, const F& f) {
  with_state(k.dtype, [&](auto zero) { with_layout(k, [&](auto last) { f(zero, last); }); });
}

void osr_forward(const OsrForward& k, int threads) {
  with_state_and_layout(k, [&](auto zero, auto last) {
    using S = decltype(zero);
    forward_passes<S, last.value>(k, threads,
                                  [&](const auto& map, int64_t) { return NormalizePanel<S, last.value>(map, k); });
  });
}

void osr_lif_forward(const LifParams& p, const OsrLifForward& k, int threads) {
  const LifForward lif = k.neuron();
  with_state_and_layout(k, [&](auto zero, auto last) {
    using S = decltype(zero);
    forward_passes<S, last.value>(k, threads,
                                  [&](const auto& map, int64_t) { return LifPanel<S, last.value>(map, k, p, lif); });
  });
}

void osr_charge(const LifParams& p, const OsrCharge& k, int threads) {
  std::vector<RelativeSums> parts(stat_blocks(k));
  with_state_and_layout(k, [&](auto zero, auto last) {
    using S = decltype(zero);
    forward_passes<S, last.value>(k, threads, [&](const auto& map, int64_t block) {
      return ChargePanel<S, last.value>(map, p, k, parts[block]);
    });
  });
  Moments all{};
  for (const RelativeSums& part : parts) all = merge(all, part.moments());
  k.u_moments[0] = all.mean;
  k.u_moments[1] = all.m2;
}

template <bool last, class S>
void add_gradient_pairs(const OsrReduce& k, int64_t c, int64_t n, const S* x, const S* g, double* first,
                        double* second) {
  const auto mean = of_panel<last>(row_of(k, Row::mean), c), inverse = of_panel<last>(row_of(k, Row::inverse), c);
  add_pairs<last>(n, first + c, second + c, [=](int64_t i) {
    const double wide = double(g[i]);
    return Pair{wide, wide * normal(double(x[i]), mean[i], inverse[i])};
  });
}

// gradient(at, n): g of a panel
template <class S, bool last, class MakeGradient>
void reduce_blocks(const OsrReduce& k, int threads, const MakeGradient& make_gradient) {
  BlockSums sums(k);
  parallel_blocks(k, threads, [&](int64_t block, int64_t begin, int64_t end) {
    auto gradient = make_gradient();
    Scratch<S> scratch(1, panel_size(k));
    S* buffer = scratch.row();
    for_each_panel<last>(k, begin, end, [&](int64_t c, int64_t at, int64_t n) {
      const S* x = load(k.x, k.dtype, at, buffer, n);
      prefetch_panel(n, x);
      const S* g = gradient(at, n);
      add_gradient_pairs<last>(k, c, n, x, g, sums.first(block), sums.second(block));
    });
  });
  std::vector<double> total(2 * k.channels);
  sums.total(total.data());
  for (int64_t c = 0; c < k.channels; c++) settle(k, c, total[c], total[k.channels + c]);
}

template <class S>
class GivenGradient {
 public:
  explicit GivenGradient(const OsrReduce& k) : k_(k), scratch_(1, panel_size(k)), buffer_(scratch_.row()) {}
  const S* operator()(int64_t at, int64_t n) {
    const S* g = load(k_.g, k_.dtype, at, buffer_, n);
    prefetch_panel(n, g);
    return g;
  }

 private:
  const OsrReduce& k_;
  Scratch<S> scratch_;
  S* buffer_;
};

// g_y of the neuron, written to g_x
template <class S>
class LifGradient {
 public:
  LifGradient(const LifParams& params, const OsrReduce& norm, const LifBackward& k)
      : p_(norm.threshold ? lif_at<S>(params, norm.threshold) : lif_of<S>(params)),
        k_(k),
        row_(pick_surrogate<Online<S>::template Row>(params.surrogate)),
        scratch_(3, panel_size(norm)),
        g_s_(scratch_.row()),
        g_y_(scratch_.row()),
        ones_(scratch_.row_of(S(1))) {}

  const S* operator()(int64_t at, int64_t n) {
    const S* g_s = load(k_.g_spikes, k_.dtype, at, g_s_, n);
    S* g_y = store_target(k_.g_x, k_.dtype, at, g_y_);
    row_(p_, g_s, at_or(static_cast<const S*>(k_.keep), at, ones_), static_cast<const S*>(k_.u) + at, g_y, n);
    store(k_.g_x, k_.dtype, at, g_y_, n);
    return g_y;
  }

 private:
  Lif<S> p_;
  const LifBackward& k_;
  void (*row_)(const Lif<S>&, const S*, const S*, const S*, S*, int64_t);
  Scratch<S> scratch_;
  S *g_s_, *g_y_;
  const S* ones_;
};

void osr_reduce(const OsrReduce& k, int threads) {
  with_state_and_layout(k, [&](auto zero, auto last) {
    reduce_blocks<decltype(zero), last.value>(k, threads, [&] { return GivenGradient<decltype(zero)>(k); });
  });
}

void osr_lif_reduce(const LifParams& p, const OsrLifReduce& k, int threads) {
  const LifBackward lif = k.neuron();
  with_state_and_layout(k, [&](auto zero, auto last) {
    reduce_blocks<decltype(zero), last.value>(k, threads, [&] { return LifGradient<decltype(zero)>(p, k, lif); });
  });
}

template <class T, bool last>
void gradient_panel(const OsrGradient& k, int64_t c, int64_t at, int64_t n) {
  using S = typename StateOf<T>::type;
  const T* x = static_cast<const T*>(k.x) + at;
  const T* g = static_cast<const T*>(k.g) + at;
  T* g_x = static_cast<T*>(k.g_x) + at;
  const auto mean = of_panel<last>(row_of(k, Row::mean), c), inverse = of_panel<last>(row_of(k, Row::inverse), c);
  const auto factor = of_panel<last>(row_of(k, Row::factor), c);
  prefetch_panel(n, x, g, g_x);
  const auto mean_g = of_panel<last>(k.means, c), mean_g_xh = of_panel<last>(k.means + k.channels, c);
  FASTSNN_SIMD
  for (int64_t i = 0; i < n; i++) {
    const double xh = normal(double(widen(x[i])), mean[i], inverse[i]);
    narrow(S(osr_gradient(double(widen(g[i])), xh, factor[i], mean_g[i], mean_g_xh[i])), g_x[i]);
  }
}

void osr_gradient(const OsrGradient& k, int threads) {
  with_dtype(k.dtype, [&](auto zero) {
    with_layout(k, [&](auto last) {
      parallel_blocks(k, threads, [&](int64_t, int64_t begin, int64_t end) {
        for_each_panel<last.value>(k, begin, end, [&](int64_t c, int64_t at, int64_t n) {
          gradient_panel<decltype(zero), last.value>(k, c, at, n);
        });
      });
    });
  });
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
