#pragma once

#include <algorithm>
#include <vector>

#include "../core/osr.h"
#include "loops.h"

// Sums over channels in two stages: every block of `outer` has its own, which are added in the blocks' order. Blocks
// follow from the shape alone, so the bits do not depend on the number of threads.
namespace fastsnn {
namespace FASTSNN_ISA {

constexpr int64_t kStatBlocks = 64;
constexpr int kPairLanes = 32;  // gcc keeps fewer in memory

struct Pair {
  double first, second;
};

inline int64_t block_begin(const Channels& k, int64_t blocks, int64_t block) { return k.outer * block / blocks; }

inline int64_t stat_blocks(const Channels& k) {
  return std::max<int64_t>(1, std::min({kStatBlocks, k.outer, k.outer * k.channels * k.inner / kGrain}));
}

// body(block, begin, end) for every block of `outer`
template <class Body>
void parallel_blocks(const Channels& k, int threads, const Body& body) {
  const int64_t blocks = stat_blocks(k);
  parallel_chunks(blocks, 1, k.outer * k.channels * k.inner, threads, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; b++) body(b, block_begin(k, blocks, b), block_begin(k, blocks, b + 1));
  });
}

// f(c, at, n): n elements from `at` on, of channel c or, with channels last, of the channels from c on
template <bool last, class F>
void for_each_panel(const Channels& k, int64_t begin, int64_t end, const F& f) {
  for (int64_t o = begin; o < end; o++) {
    if constexpr (last) {
      for (int64_t c = 0; c < k.channels; c += kChunk) f(c, o * k.channels + c, std::min(kChunk, k.channels - c));
    } else {
      for (int64_t c = 0; c < k.channels; c++) {
        const int64_t row = (o * k.channels + c) * k.inner;
        for (int64_t i = 0; i < k.inner; i += kChunk) f(c, row + i, std::min(kChunk, k.inner - i));
      }
    }
  }
}

// Elements of the longest panel
inline int64_t panel_size(const Channels& k) { return k.inner == 1 ? k.channels : k.inner; }

// Calls f(last) with whether channels are last.
template <class F>
void with_layout(const Channels& k, const F& f) {
  k.inner == 1 ? f(std::true_type{}) : f(std::false_type{});
}

// Ask for the page after a panel's, of each stream.
template <class... Streams>
void prefetch_panel(int64_t n, const Streams*... streams) {
  for (int64_t i = 0; i < n; i += kBlock) prefetch_all(i, streams...);
}

// What a panel reads of a vector over channels: one value, or one an element
template <bool last, class V>
struct OfPanel {
  V value;
  V operator[](int64_t) const { return value; }
};
template <class V>
struct OfPanel<true, V> {
  const V* at;
  V operator[](int64_t i) const { return at[i]; }
};

template <bool last, class V>
OfPanel<last, V> of_panel(const V* channels, int64_t c) {
  if constexpr (last) {
    return {channels + c};
  } else {
    return {channels[c]};
  }
}

// Adds term(i) of a panel to its channels' sums.
template <bool last, class Term>
void add_pairs(int64_t n, double* first, double* second, const Term& term) {
  if constexpr (last) {
    FASTSNN_SIMD
    for (int64_t i = 0; i < n; i++) {
      const Pair pair = term(i);
      first[i] += pair.first;
      second[i] += pair.second;
    }
  } else {
    double a[kPairLanes] = {}, b[kPairLanes] = {};
    const auto lane = [&](int l, int64_t i) {
      const Pair pair = term(i);
      a[l] += pair.first;
      b[l] += pair.second;
    };
    int64_t i = 0;
    for (; i + kPairLanes <= n; i += kPairLanes) {
      for (int l = 0; l < kPairLanes; l++) lane(l, i + l);
    }
    for (int l = 0; i < n; i++, l++) lane(l, i);
    for (int half = kPairLanes / 2; half > 0; half /= 2) {
      for (int l = 0; l < half; l++) a[l] += a[l + half], b[l] += b[l + half];
    }
    *first += a[0];
    *second += b[0];
  }
}

// Adds x - origin and its square, of a panel, to its channels' sums.
template <bool last, class S>
void add_moments(int64_t n, const S* x, const double* origin, double* first, double* second) {
  const auto from = of_panel<last>(origin, 0);
  add_pairs<last>(n, first, second, [=](int64_t i) {
    const double d = double(x[i]) - from[i];
    return Pair{d, d * d};
  });
}

// Moments of a row. The origin is one of its values, so that squaring loses at most n roundings.
template <class S>
Moments row_moments(const S* row, int64_t n) {
  const double origin = row[0];
  double sum = 0.0, squares = 0.0;
  add_moments<false>(n, row, &origin, &sum, &squares);
  return moments_of(double(n), origin, sum, squares);
}

// The two sums of every channel, a block each
class BlockSums {
 public:
  explicit BlockSums(const Channels& k) : k_(k), at_(stat_blocks(k) * 2 * k.channels) {}

  double* first(int64_t block) { return at_.data() + 2 * block * k_.channels; }
  double* second(int64_t block) { return first(block) + k_.channels; }

  // [2, channels], added in the order of blocks
  void total(double* sums) const {
    std::copy_n(at_.data(), 2 * k_.channels, sums);
    for (int64_t b = 1; b < stat_blocks(k_); b++) {
      for (int64_t i = 0; i < 2 * k_.channels; i++) sums[i] += at_[2 * b * k_.channels + i];
    }
  }

 private:
  Channels k_;
  std::vector<double> at_;
};

// What a block subtracts before it sums: the first element of each channel
void origins(const Channels& k, const void* x, int64_t begin, double* origin) {
  with_dtype(k.dtype, [&](auto zero) {
    const auto* row = static_cast<const decltype(zero)*>(x) + begin * k.channels * k.inner;
    for (int64_t c = 0; c < k.channels; c++) origin[c] = widen(row[c * k.inner]);
  });
}

// Merges the blocks' moments, in their order, from sums of x - origin and of its square.
void merge_blocks(const Channels& k, const void* x, BlockSums& sums, double* mean, double* m2) {
  const int64_t blocks = stat_blocks(k);
  std::vector<double> origin(k.channels);
  std::fill_n(mean, k.channels, 0.0);
  std::fill_n(m2, k.channels, 0.0);
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t begin = block_begin(k, blocks, b), end = block_begin(k, blocks, b + 1);
    const double before = double(begin * k.inner), n = double((end - begin) * k.inner);
    origins(k, x, begin, origin.data());
    const double *first = sums.first(b), *second = sums.second(b);
    FASTSNN_SIMD
    for (int64_t c = 0; c < k.channels; c++) {
      const Moments merged = merge(Moments{before, mean[c], m2[c]}, moments_of(n, origin[c], first[c], second[c]));
      mean[c] = merged.mean;
      m2[c] = merged.m2;
    }
  }
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
