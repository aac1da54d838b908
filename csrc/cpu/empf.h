#pragma once

#include <type_traits>

#include "../core/empf.h"
#include "loops.h"
#include "standardize.h"
#include "stats.h"

// EM-PF forward and backward over chunks that stay in L1; sums over fixed slices of the chunks, in their order.
namespace fastsnn {
namespace FASTSNN_ISA {

constexpr int64_t kSlices = 64;

// A parameter along a run of elements: one value each, or one for all.
template <class S, bool each>
struct Along {
  const S* values;
  S first;
  explicit Along(const S* at) : values(at), first(at[0]) {}
  S operator[](int64_t i) const { return each ? values[i] : first; }
};

// Cuts [begin, end) into runs of one channel, or of neighbouring channels where they are innermost, and calls
// body(offset in the chunk, length, first channel, whether each element has a channel of its own).
template <class Body>
void for_each_run(const EmpfShape& k, int64_t begin, int64_t end, const Body& body) {
  const bool innermost = k.inner == 1;
  const int64_t length = innermost ? k.channels : k.inner;
  for (int64_t i = begin; i < end;) {
    const int64_t at = i % length, n = std::min(length - at, end - i);
    if (innermost) {
      body(i - begin, n, at, std::true_type());
    } else {
      body(i - begin, n, i / length % k.channels, std::false_type());
    }
    i += n;
  }
}

// The same, in blocks that ask for `streams`, given from the chunk's begin on, ahead of their runs.
template <class Body, class... Streams>
void for_each_run_ahead(const EmpfShape& k, int64_t begin, int64_t end, const Body& body, const Streams*... streams) {
  for (int64_t i = begin; i < end; i += kBlock) {
    const int64_t at = i - begin;
    prefetch_all(at, streams...);
    for_each_run(k, i, std::min(end, i + kBlock),
                 [&](int64_t o, int64_t n, int64_t c, auto each) { body(at + o, n, c, each); });
  }
}

template <bool each, class Term>
void add_run(double* sums, int64_t n, const Term& term) {
  if constexpr (each) {
    FASTSNN_SIMD
    for (int64_t i = 0; i < n; i++) sums[i] += term(i);
  } else {
    sums[0] += ordered_sum(n, term);
  }
}

// body(chunk's begin, length, scratch of `rows` rows)
template <class S, class Body>
void for_each_chunk(int64_t n, int threads, int64_t work, int64_t rows, const Body& body) {
  parallel_chunks(n, kChunk, work, threads, [&](int64_t begin, int64_t end) {
    Scratch<S> scratch(rows, end - begin);
    for (int64_t i = begin; i < end; i += kChunk) {
      scratch.rewind();
      body(i, std::min(kChunk, end - i), scratch);
    }
  });
}

// Runs body(chunk's begin, length, sums, scratch of `rows` rows) with `count` sums a slice; returns their totals. The
// slices do not depend on the number of threads.
template <class S, class Body>
std::vector<double> sliced_sums(const EmpfShape& k, int64_t count, int threads, int64_t rows, const Body& body) {
  const int64_t chunks = (k.n + kChunk - 1) / kChunk, slices = std::min(chunks, kSlices);
  std::vector<double> partial(slices * count), total(count);
  parallel_chunks(slices, 1, k.n * k.T, threads, [&](int64_t first, int64_t last) {
    Scratch<S> scratch(rows, k.n);
    for (int64_t slice = first; slice < last; slice++) {
      const int64_t end = std::min(k.n, chunks * (slice + 1) / slices * kChunk);
      for (int64_t i = chunks * slice / slices * kChunk; i < end; i += kChunk) {
        scratch.rewind();
        body(i, std::min(kChunk, end - i), partial.data() + slice * count, scratch);
      }
    }
  });
  for (int64_t slice = 0; slice < slices; slice++) {
    for (int64_t j = 0; j < count; j++) total[j] += partial[slice * count + j];
  }
  return total;
}

template <class S, bool each>
void empf_charge_run(const S* x, const S* v, const S* leak, S* m, int64_t n) {
  const Along<S, each> lam(leak);
  FASTSNN_SIMD
  for (int64_t i = 0; i < n; i++) m[i] = leaky(lam[i], v[i], x[i]);
}

template <class S, bool each, bool stateful>
void empf_fire_run(const S* x, const S* v_prev, const S* leak, const S* threshold, S* s, S* v, int64_t n) {
  const Along<S, each> lam(leak), th(threshold);
  FASTSNN_SIMD
  for (int64_t i = 0; i < n; i++) {
    const S m = stateful ? leaky(lam[i], v_prev[i], x[i]) : x[i];
    const S after = clipped(m, th[i]);
    s[i] = m - after;
    if (stateful) v[i] = after;
  }
}

template <class S, bool stateful>
void empf_forward_chunk(const EmpfForward& k, int64_t i, int64_t n, Scratch<S>& scratch) {
  S *x = scratch.row(), *s = scratch.row(), *v = scratch.row();
  const S* threshold = static_cast<const S*>(k.threshold);
  const S* leak = stateful ? static_cast<const S*>(k.leak) : threshold;
  const S* v_prev = k.v ? static_cast<const S*>(k.v) + i : scratch.row_of(S(0));
  for (int64_t t = 0; t < k.T; t++) {
    const int64_t at = t * k.n + i;
    const S* input = load(k.x, k.dtype, at, x, n);
    S* fired = store_target(k.spikes, k.dtype, at, s);
    S* after =
        k.v_seq ? static_cast<S*>(k.v_seq) + at : at_or(t + 1 == k.T ? static_cast<S*>(k.v_last) : nullptr, i, v);
    const auto fire = [&](int64_t o, int64_t run, int64_t c, auto each) {
      const int64_t p = t * k.channels + c;
      empf_fire_run<S, decltype(each)::value, stateful>(input + o, v_prev + o, leak + p, threshold + p, fired + o,
                                                        after + o, run);
    };
    for_each_run_ahead(k, i, i + n, fire, input, v_prev, fired, after);
    store(k.spikes, k.dtype, at, s, n);
    v_prev = after;
  }
}

void empf_forward(const EmpfForward& k, int threads) {
  with_state(k.dtype, [&](auto zero) {
    using S = decltype(zero);
    const auto chunk = k.leak ? empf_forward_chunk<S, true> : empf_forward_chunk<S, false>;
    for_each_chunk<S>(k.n, threads, k.n * k.T, 4,
                      [&](int64_t i, int64_t n, Scratch<S>& scratch) { chunk(k, i, n, scratch); });
  });
}

template <class S, bool each>
void empf_fired_run(const S* g_s, const S* v, const S* threshold, S* g_m, int64_t n) {
  const Along<S, each> th(threshold);
  FASTSNN_SIMD
  for (int64_t i = 0; i < n; i++) g_m[i] = fired_gradient(g_s[i], v[i], th[i]);
}

template <class S>
void empf_backward_chunk(const EmpfBackward& k, int64_t i, int64_t n, double* g_leak, double* g_threshold,
                         Scratch<S>& scratch) {
  S *g = scratch.row(), *after = scratch.row(), *out = scratch.row();
  const S* v_prev = k.v ? static_cast<const S*>(k.v) + i : scratch.row_of(S(0));
  for (int64_t t = 0; t < k.T; t++) {
    const int64_t at = t * k.n + i;
    const S* g_s = load(k.g_spikes, k.dtype, at, g, n);
    const S* v = k.v_seq ? static_cast<const S*>(k.v_seq) + at : load(k.x, k.dtype, at, after, n);
    S* g_m = store_target(k.g_x, k.dtype, at, out);
    const auto gradient = [&](int64_t o, int64_t run, int64_t c, auto each) {
      constexpr bool kEach = decltype(each)::value;
      const int64_t p = t * k.channels + c;
      const S *g_run = g_m + o, *v_run = v_prev + o;
      empf_fired_run<S, kEach>(g_s + o, v + o, static_cast<const S*>(k.threshold) + p, g_m + o, run);
      add_pairs<kEach>(run, g_threshold + p, g_leak + p, [=](int64_t j) {
        const double g = g_run[j];
        return Pair{-g, g * double(v_run[j])};
      });
    };
    for_each_run_ahead(k, i, i + n, gradient, g_s, v, v_prev, g_m);
    store(k.g_x, k.dtype, at, out, n);
    if (k.v_seq) v_prev = v;
  }
}

void empf_backward(const EmpfBackward& k, int threads) {
  const int64_t count = k.T * k.channels;
  with_state(k.dtype, [&](auto zero) {
    using S = decltype(zero);
    const auto chunk = [&](int64_t i, int64_t n, double* sums, Scratch<S>& scratch) {
      empf_backward_chunk<S>(k, i, n, sums, sums + count, scratch);
    };
    const auto total = sliced_sums<S>(k, 2 * count, threads, 4, chunk);
    if (k.g_leak) std::copy_n(total.data(), count, static_cast<double*>(k.g_leak));
    std::copy_n(total.data() + count, count, static_cast<double*>(k.g_threshold));
  });
}

template <class S>
void empf_potential_of(const EmpfPotential& k, int threads) {
  const S *v = static_cast<const S*>(k.v), *leak = static_cast<const S*>(k.leak);
  double* shift = static_cast<double*>(k.shift);
  for (int64_t c = 0; c < k.channels; c++) {
    shift[c] = leaky(leak[c], v ? v[c * k.inner] : S(0), S(element(k.x, k.dtype, c * k.inner)));
  }
  const auto chunk = [&](int64_t i, int64_t n, double* sums, Scratch<S>& scratch) {
    const S* input = load(k.x, k.dtype, i, scratch.row(), n);
    const S* v_prev = v ? v + i : scratch.row_of(S(0));
    S* m = static_cast<S*>(k.m) + i;
    const auto charge = [&](int64_t o, int64_t run, int64_t c, auto each) {
      constexpr bool kEach = decltype(each)::value;
      empf_charge_run<S, kEach>(input + o, v_prev + o, leak + c, m + o, run);
      if (k.sums) add_moments<kEach>(run, m + o, shift + c, sums + c, sums + k.channels + c);
    };
    for_each_run_ahead(k, i, i + n, charge, input, v_prev, m);
  };
  const auto total = sliced_sums<S>(k, 2 * k.channels, threads, 2, chunk);
  if (!k.sums) return;
  std::copy_n(total.data(), k.channels, static_cast<double*>(k.sums));
  std::copy_n(total.data() + k.channels, k.channels, static_cast<double*>(k.squares));
}

void empf_potential(const EmpfPotential& k, int threads) {
  with_state(k.dtype, [&](auto zero) { empf_potential_of<decltype(zero)>(k, threads); });
}

template <class S, bool each>
struct NormAlong {
  Along<S, each> mean, inverse, alpha, beta, gamma, bias, threshold;
  NormAlong(const EmpfNorm& k, int64_t c)
      : mean(static_cast<const S*>(k.mean) + c),
        inverse(static_cast<const S*>(k.inverse) + c),
        alpha(static_cast<const S*>(k.alpha) + c),
        beta(static_cast<const S*>(k.beta) + c),
        gamma(static_cast<const S*>(k.gamma) + c),
        bias(static_cast<const S*>(k.bias) + c),
        threshold(static_cast<const S*>(k.threshold) + c) {}
};

template <class S, bool each>
void norm_fire_run(const EmpfNorm& k, int64_t c, const S* m, S* s, S* v, int64_t n) {
  const NormAlong<S, each> p(k, c);
  FASTSNN_SIMD
  for (int64_t i = 0; i < n; i++) {
    const S xhat = standardized(m[i], p.mean[i], p.inverse[i]);
    const S mh = membrane_norm(m[i], xhat, p.alpha[i], p.beta[i], p.gamma[i], p.bias[i]);
    v[i] = clipped(mh, p.threshold[i]);
    s[i] = mh - v[i];
  }
}

void empf_norm_forward(const EmpfNormForward& k, int threads) {
  with_state(k.dtype, [&](auto zero) {
    using S = decltype(zero);
    for_each_chunk<S>(k.n, threads, k.n, 1, [&](int64_t i, int64_t n, Scratch<S>& scratch) {
      S* s = scratch.row();
      S* fired = store_target(k.spikes, k.dtype, i, s);
      const S* m = static_cast<const S*>(k.m) + i;
      S* v = static_cast<S*>(k.v_last) + i;
      const auto fire = [&](int64_t o, int64_t run, int64_t c, auto each) {
        norm_fire_run<S, decltype(each)::value>(k, c, m + o, fired + o, v + o, run);
      };
      for_each_run_ahead(k, i, i + n, fire, m, fired, v);
      store(k.spikes, k.dtype, i, s, n);
    });
  });
}

template <class S>
void norm_sums_chunk(const EmpfNormSums& k, int64_t i, int64_t n, double* g_mh, double* g_mh_xhat,
                     Scratch<S>& scratch) {
  const S* g_s = load(k.g_spikes, k.dtype, i, scratch.row(), n);
  S* fired = scratch.row();
  const S *m = static_cast<const S*>(k.m) + i, *v = static_cast<const S*>(k.v_last) + i;
  const auto sum = [&](int64_t o, int64_t run, int64_t c, auto each) {
    constexpr bool kEach = decltype(each)::value;
    const NormAlong<S, kEach> p(k, c);
    const S *g_run = fired + o, *m_run = m + o;
    empf_fired_run<S, kEach>(g_s + o, v + o, static_cast<const S*>(k.threshold) + c, fired + o, run);
    add_pairs<kEach>(run, g_mh + c, g_mh_xhat + c, [=](int64_t j) {
      const double g = g_run[j];
      return Pair{g, g * double(standardized(m_run[j], p.mean[j], p.inverse[j]))};
    });
  };
  for_each_run_ahead(k, i, i + n, sum, g_s, v, m);
}

void empf_norm_sums(const EmpfNormSums& k, int threads) {
  with_state(k.dtype, [&](auto zero) {
    using S = decltype(zero);
    const auto chunk = [&](int64_t i, int64_t n, double* sums, Scratch<S>& scratch) {
      norm_sums_chunk<S>(k, i, n, sums, sums + k.channels, scratch);
    };
    const auto total = sliced_sums<S>(k, 2 * k.channels, threads, 2, chunk);
    std::copy_n(total.data(), k.channels, static_cast<double*>(k.g_mh));
    std::copy_n(total.data() + k.channels, k.channels, static_cast<double*>(k.g_mh_xhat));
  });
}

template <class S, bool each>
void norm_gradient_run(const EmpfNormBackward& k, int64_t c, const S* g_s, const S* m, const S* v, S* g_m, int64_t n) {
  const NormAlong<S, each> p(k, c);
  const Along<S, each> pull(static_cast<const S*>(k.pull) + c), pull_xhat(static_cast<const S*>(k.pull_xhat) + c);
  FASTSNN_SIMD
  for (int64_t i = 0; i < n; i++) {
    const S g_mh = fired_gradient(g_s[i], v[i], p.threshold[i]);
    const S xhat = standardized(m[i], p.mean[i], p.inverse[i]);
    g_m[i] = norm_gradient(g_mh, xhat, p.alpha[i], p.beta[i], p.gamma[i] * p.inverse[i], pull[i], pull_xhat[i]);
  }
}

template <class S>
void norm_backward_chunk(const EmpfNormBackward& k, int64_t i, int64_t n, double* g_leak, Scratch<S>& scratch) {
  S *g = scratch.row(), *out = scratch.row();
  const S* g_s = load(k.g_spikes, k.dtype, i, g, n);
  const S *m = static_cast<const S*>(k.m) + i, *v = static_cast<const S*>(k.v_last) + i;
  const S* v_prev = at_or(static_cast<const S*>(k.v), i, v);
  S* g_m = store_target(k.g_x, k.dtype, i, out);
  const auto gradient = [&](int64_t o, int64_t run, int64_t c, auto each) {
    constexpr bool kEach = decltype(each)::value;
    const S *g_run = g_m + o, *v_run = v_prev + o;
    norm_gradient_run<S, kEach>(k, c, g_s + o, m + o, v + o, g_m + o, run);
    if (!k.v) return;
    add_run<kEach>(g_leak + c, run, [&](int64_t j) { return double(g_run[j]) * double(v_run[j]); });
  };
  for_each_run_ahead(k, i, i + n, gradient, g_s, m, v, v_prev, g_m);
  store(k.g_x, k.dtype, i, out, n);
}

void empf_norm_backward(const EmpfNormBackward& k, int threads) {
  with_state(k.dtype, [&](auto zero) {
    using S = decltype(zero);
    const auto chunk = [&](int64_t i, int64_t n, double* sums, Scratch<S>& scratch) {
      norm_backward_chunk<S>(k, i, n, sums, scratch);
    };
    const auto total = sliced_sums<S>(k, k.channels, threads, 2, chunk);
    std::copy_n(total.data(), k.channels, static_cast<double*>(k.g_leak));
  });
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
