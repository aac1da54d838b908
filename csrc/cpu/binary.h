#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cmath>
#include <limits>
#include <memory>

#include "../core/binary.h"
#include "loops.h"
#include "standardize.h"

// Sums stay in registers only where the loops over them are gone.
#if defined(__clang__)
#define FASTSNN_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define FASTSNN_UNROLL _Pragma("GCC unroll 16")
#else
#define FASTSNN_UNROLL
#endif

// Binary weights, and the product of spikes with packed signs by look-up: the 16 signed sums that a nibble can ask for
// are made once for every 4 (or 2) spikes, then one permutation adds 4 (or 2) weights of 16 outputs. Additions have one
// order, whatever the instruction set and the number of threads.
namespace fastsnn {
namespace FASTSNN_ISA {

template <class F>
void parallel_outputs(const Binarize& k, int threads, const F& row) {
  parallel_chunks(k.rows, 1, k.rows * k.cols, threads, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) row(r);
  });
}

template <class T>
void binarize_forward_row(const BinarizeForward& k, int64_t r) {
  using S = typename StateOf<T>::type;
  const T* w = static_cast<const T*>(k.weight) + r * k.cols;
  T* out = static_cast<T*>(k.out) + r * k.cols;
  const double total = ordered_sum(k.cols, [&](int64_t j) { return std::fabs(double(widen(w[j]))); });
  const double mean = total / double(k.cols);
  static_cast<double*>(k.scale)[r] = mean;
  const S scale = k.scaled ? S(mean) : S(1);
  FASTSNN_SIMD
  for (int64_t j = 0; j < k.cols; j++) narrow(scale * sign(S(widen(w[j]))), out[j]);
}

template <class T>
void binarize_backward_row(const BinarizeBackward& k, int64_t r) {
  const T* w = static_cast<const T*>(k.weight) + r * k.cols;
  const T* g = static_cast<const T*>(k.g_out) + r * k.cols;
  T* g_w = static_cast<T*>(k.g_weight) + r * k.cols;
  FASTSNN_SIMD
  for (int64_t j = 0; j < k.cols; j++) narrow(straight_through(widen(g[j]), widen(w[j])), g_w[j]);
}

void binarize_forward(const BinarizeForward& k, int threads) {
  with_dtype(k.dtype, [&](auto zero) {
    parallel_outputs(k, threads, [&](int64_t r) { binarize_forward_row<decltype(zero)>(k, r); });
  });
}

void binarize_backward(const BinarizeBackward& k, int threads) {
  with_dtype(k.dtype, [&](auto zero) {
    parallel_outputs(k, threads, [&](int64_t r) { binarize_backward_row<decltype(zero)>(k, r); });
  });
}

constexpr int64_t kLine = 16;       // spikes read together
constexpr int64_t kTable = 16;      // sums that a nibble can ask for
constexpr int64_t kTileRows = 128;  // output positions whose tables are made together
constexpr int64_t kTileWords = 4;   // words of each tap between two rounds of tables
constexpr int64_t kFewRows = 8;     // rows below which weights are read once, so in long runs
constexpr int64_t kRunWords = 32;   // of so many words
constexpr int64_t kSkipRows = 16;   // rows from which skipping tables that are zero pays
constexpr int64_t kSkipShare = 80;  // and the percent of the others up to which it does

// 16 outputs: their sums, and their nibbles as indices into a table.
#if defined(__AVX512F__)
constexpr int kRows = 4, kBlocks = 4, kRowBlocks = 8, kSkipBlocks = 16;  // of the inner loops: what fits in registers
struct Sums {
  __m512 at;
};
struct Indices {
  __m512i at;
};
struct Table {
  __m512 at;
};
FASTSNN_HD Sums no_sums() { return {_mm512_setzero_ps()}; }
FASTSNN_HD Indices load_indices(const uint32_t* words) { return {_mm512_loadu_si512(words)}; }
FASTSNN_HD Indices next_nibble(Indices i) { return {_mm512_srli_epi32(i.at, 4)}; }
FASTSNN_HD void store(uint32_t* words, Indices i) { _mm512_storeu_si512(words, i.at); }
FASTSNN_HD Table load_table(const float* table) { return {_mm512_load_ps(table)}; }
FASTSNN_HD void add(Sums& s, const Table& table, Indices i) {
  s.at = _mm512_add_ps(s.at, _mm512_permutexvar_ps(i.at, table.at));
}
FASTSNN_HD void add_scaled(Sums& s, const float* values, float factor) {
  s.at = _mm512_add_ps(s.at, _mm512_mul_ps(_mm512_load_ps(values), _mm512_set1_ps(factor)));
}
FASTSNN_HD void store(float* at, Sums s) { _mm512_store_ps(at, s.at); }
FASTSNN_HD void add_to(float* total, Sums s) { _mm512_store_ps(total, _mm512_add_ps(_mm512_load_ps(total), s.at)); }
#elif defined(__AVX2__)
constexpr int kRows = 4, kBlocks = 1, kRowBlocks = 2, kSkipBlocks = 4;
struct Sums {
  __m256 low, high;
};
struct Indices {
  __m256i low, high;
};
struct Table {
  __m256 low, high;
};
FASTSNN_HD Sums no_sums() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
FASTSNN_HD Indices load_indices(const uint32_t* words) {
  const __m256i* at = reinterpret_cast<const __m256i*>(words);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}
FASTSNN_HD Indices next_nibble(Indices i) { return {_mm256_srli_epi32(i.low, 4), _mm256_srli_epi32(i.high, 4)}; }
FASTSNN_HD void store(uint32_t* words, Indices i) {
  __m256i* at = reinterpret_cast<__m256i*>(words);
  _mm256_storeu_si256(at, i.low);
  _mm256_storeu_si256(at + 1, i.high);
}
FASTSNN_HD Table load_table(const float* table) { return {_mm256_load_ps(table), _mm256_load_ps(table + 8)}; }
// a permutation reads 3 bits, the fourth chooses the half of the table
FASTSNN_HD __m256 look_up(const Table& table, __m256i index) {
  const __m256 low = _mm256_permutevar8x32_ps(table.low, index), high = _mm256_permutevar8x32_ps(table.high, index);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}
FASTSNN_HD void add(Sums& s, const Table& table, Indices i) {
  s.low = _mm256_add_ps(s.low, look_up(table, i.low));
  s.high = _mm256_add_ps(s.high, look_up(table, i.high));
}
FASTSNN_HD void add_scaled(Sums& s, const float* values, float factor) {
  const __m256 f = _mm256_set1_ps(factor);
  s.low = _mm256_add_ps(s.low, _mm256_mul_ps(_mm256_load_ps(values), f));
  s.high = _mm256_add_ps(s.high, _mm256_mul_ps(_mm256_load_ps(values + 8), f));
}
FASTSNN_HD void store(float* at, Sums s) {
  _mm256_store_ps(at, s.low);
  _mm256_store_ps(at + 8, s.high);
}
FASTSNN_HD void add_to(float* total, Sums s) {
  const Sums sum{_mm256_add_ps(_mm256_load_ps(total), s.low), _mm256_add_ps(_mm256_load_ps(total + 8), s.high)};
  store(total, sum);
}
#else
constexpr int kRows = 1, kBlocks = 1, kRowBlocks = 1, kSkipBlocks = 1;
struct Sums {
  float at[kOutputs];
};
struct Indices {
  uint32_t at[kOutputs];
};
struct Table {
  const float* at;
};
FASTSNN_HD Sums no_sums() { return {}; }
FASTSNN_HD Indices load_indices(const uint32_t* words) {
  Indices i;
  std::copy_n(words, kOutputs, i.at);
  return i;
}
FASTSNN_HD Indices next_nibble(Indices i) {
  for (uint32_t& word : i.at) word >>= 4;
  return i;
}
FASTSNN_HD void store(uint32_t* words, const Indices& i) { std::copy_n(i.at, kOutputs, words); }
FASTSNN_HD Table load_table(const float* table) { return {table}; }
FASTSNN_HD void add(Sums& s, const Table& table, const Indices& i) {
  for (int64_t o = 0; o < kOutputs; o++) s.at[o] += table.at[i.at[o] & 15];
}
FASTSNN_HD void add_scaled(Sums& s, const float* values, float factor) {
  for (int64_t o = 0; o < kOutputs; o++) s.at[o] += values[o] * factor;
}
FASTSNN_HD void store(float* at, const Sums& s) { std::copy_n(s.at, kOutputs, at); }
FASTSNN_HD void add_to(float* total, const Sums& s) {
  for (int64_t o = 0; o < kOutputs; o++) total[o] += s.at[o];
}
#endif

template <int bits>
struct Coefficients {
  static constexpr int count = 4 / bits;
  alignas(64) float at[count][kTable];
  constexpr Coefficients() : at() {
    for (int j = 0; j < count; j++) {
      for (int nibble = 0; nibble < kTable; nibble++) at[j][nibble] = weight_of(bits, nibble, j);
    }
  }
};

// The table of some spikes, and whether any of them is not zero.
template <int bits>
FASTSNN_HD bool make_table(const float* spikes, float* table) {
  static constexpr Coefficients<bits> coefficients;
  Sums sums = no_sums();
  uint32_t any = 0;
  for (int j = 0; j < Coefficients<bits>::count; j++) {
    add_scaled(sums, coefficients.at[j], spikes[j]);
    any |= bit_cast<uint32_t>(spikes[j]);
  }
  store(table, sums);
  return any << 1 != 0;
}

// Memory aligned for the widest vectors, that grows and forgets what it held.
template <class V>
class Growing {
 public:
  V* at_least(int64_t n) {
    if (n > size_) {
      memory_.reset(new V[size_t(n) + 64 / sizeof(V)]);
      at_ = memory_.get() + (64 - reinterpret_cast<uintptr_t>(memory_.get()) % 64) % 64 / sizeof(V);
      size_ = n;
    }
    return at_;
  }

 private:
  std::unique_ptr<V[]> memory_;
  V* at_ = nullptr;
  int64_t size_ = 0;
};

// Rows (output positions) against blocks of outputs, over some words of one tap.
struct Strip {
  const float* const* tables;  // [rows]
  const uint32_t* words;       // of the first block
  float* sums;                 // [rows, all blocks, 16]
  int64_t count, words_of_block, sums_of_row;
};

template <int rows, int blocks>
void add_products(const Strip& strip) {
  Sums sums[rows][blocks];
  FASTSNN_UNROLL
  for (auto& row : sums) {
    FASTSNN_UNROLL
    for (Sums& s : row) s = no_sums();
  }
  const float* tables[rows];
  FASTSNN_UNROLL
  for (int r = 0; r < rows; r++) tables[r] = strip.tables[r];
  for (int64_t w = 0; w < strip.count; w++) {
    Indices indices[blocks];
    FASTSNN_UNROLL
    for (int b = 0; b < blocks; b++) {
      indices[b] = load_indices(strip.words + b * strip.words_of_block + w * kOutputs);
    }
    for (int nibble = 0; nibble < kNibbles; nibble++) {
      FASTSNN_UNROLL
      for (int r = 0; r < rows; r++) {
        const Table table = load_table(tables[r] + nibble * kTable);
        FASTSNN_UNROLL
        for (int b = 0; b < blocks; b++) add(sums[r][b], table, indices[b]);
      }
      FASTSNN_UNROLL
      for (int b = 0; b < blocks; b++) indices[b] = next_nibble(indices[b]);
    }
    FASTSNN_UNROLL
    for (int r = 0; r < rows; r++) tables[r] += kNibbles * kTable;
  }
  FASTSNN_UNROLL
  for (int r = 0; r < rows; r++) {
    FASTSNN_UNROLL
    for (int b = 0; b < blocks; b++) add_to(strip.sums + r * strip.sums_of_row + b * kOutputs, sums[r][b]);
  }
}

template <int rows>
void add_strip(Strip strip, int64_t blocks) {
  constexpr int together = rows == 1 ? kRowBlocks : kBlocks;
  for (; blocks >= together; blocks -= together) {
    add_products<rows, together>(strip);
    strip.words += together * strip.words_of_block;
    strip.sums += together * kOutputs;
  }
  for (; blocks > 0; blocks--) {
    add_products<rows, 1>(strip);
    strip.words += strip.words_of_block;
    strip.sums += kOutputs;
  }
}

// One row's tables that are not all zero, against blocks of outputs whose indices lie apart, nibble by nibble.
template <int blocks>
void add_nonzero(const float* table, const int32_t* nibbles, int64_t count, const uint32_t* indices, float* total) {
  Sums sums[blocks];
  FASTSNN_UNROLL
  for (Sums& s : sums) s = no_sums();
  for (int64_t i = 0; i < count; i++) {
    const int64_t nibble = nibbles[i];
    const Table values = load_table(table + nibble * kTable);
    const uint32_t* of_nibble = indices + nibble * blocks * kOutputs;
    FASTSNN_UNROLL
    for (int b = 0; b < blocks; b++) add(sums[b], values, load_indices(of_nibble + b * kOutputs));
  }
  FASTSNN_UNROLL
  for (int b = 0; b < blocks; b++) add_to(total + b * kOutputs, sums[b]);
}

// A tile of rows against a range of blocks of outputs.
class PackedTile {
 public:
  PackedTile(const PackedProduct& k, int64_t first_block, int64_t last_block)
      : k_(k),
        taps_(k.kernel.height * k.kernel.width),
        words_((k.channels * k.bits + 31) / 32),
        chunk_(k.batch * k.out.height * k.out.width < kFewRows ? kRunWords : kTileWords),
        first_block_(first_block),
        blocks_(last_block - first_block) {
    with_dtype(k.dtype, [&](auto zero) {
      if constexpr (sizeof(zero) < sizeof(double)) choose<decltype(zero)>();
    });
  }

  void run(int64_t first_row, int64_t last_row) {
    rows_ = last_row - first_row;
    find_pixels(first_row);
    sums_ = sums_memory_.at_least(rows_ * blocks_ * kOutputs);
    std::fill_n(sums_, rows_ * blocks_ * kOutputs, 0.0f);
    for (int64_t word = 0; word < words_; word += chunk_) {
      count_ = std::min(chunk_, words_ - word);
      (this->*make_tables_)(word);
      const bool skip = rows_ >= kSkipRows && find_nonzero();
      for (int64_t tap = 0; tap < taps_; tap++) {
        const int64_t of_tap = words_ * kOutputs;
        const uint32_t* words = k_.words + (first_block_ * taps_ + tap) * of_tap + word * kOutputs;
        skip ? skip_zeros(tap, words) : add_all(tap, words);
      }
    }
    (this->*write_)();
  }

 private:
  template <class T>
  void choose() {
    make_tables_ = k_.bits == 1 ? &PackedTile::make_tables<T, 1> : &PackedTile::make_tables<T, 2>;
    write_ = &PackedTile::write<T>;
  }

  // The pixels of x under the taps of an output position, -1 outside.
  void add_window(Position out) {
    for (int64_t i = 0; i < k_.kernel.height; i++) {
      for (int64_t j = 0; j < k_.kernel.width; j++) {
        const Position at = under_tap(k_, out, i, j);
        windows_.push_back(inside(at, k_.in) ? (at.sample * k_.in.height + at.row) * k_.in.width + at.column : -1);
      }
    }
  }

  // The pixels under the windows of the rows, each once; windows_ become places in that list, 0 is outside.
  void find_pixels(int64_t first_row) {
    windows_.clear();
    y_offsets_.clear();
    for (int64_t r = 0; r < rows_; r++) {
      const Position out = position(first_row + r, k_.out);
      y_offsets_.push_back(offset(out, k_.y_strides));
      add_window(out);
    }
    int64_t low = std::numeric_limits<int64_t>::max(), high = -1;
    for (int64_t w : windows_) {
      low = w < 0 ? low : std::min(low, w);
      high = std::max(high, w);
    }
    places_.assign(size_t(high < 0 ? 0 : high - low + 1), 0);
    x_offsets_.assign(1, -1);
    for (int64_t& w : windows_) w = w < 0 ? 0 : place(w, places_[size_t(w - low)]);
  }

  int64_t place(int64_t pixel, int64_t& known) {
    if (known == 0) {
      known = pixels();
      x_offsets_.push_back(offset(position(pixel, k_.in), k_.x_strides));
    }
    return known;
  }

  int64_t pixels() const { return int64_t(x_offsets_.size()); }
  int64_t tables_of_pixel() const { return count_ * kNibbles; }

  // A cache line of spikes at a time: pixels that are neighbours in x share it.
  template <class T, int bits>
  void make_tables(int64_t word) {
    constexpr int64_t per_word = 32 / bits;
    tables_ = table_memory_.at_least(pixels() * tables_of_pixel() * kTable);
    fired_.resize(size_t(pixels() * tables_of_pixel()));
    float spikes[kLine];
    for (int64_t s = 0; s < count_ * per_word; s += kLine) {
      for (int64_t p = 0; p < pixels(); p++) {
        load_spikes<T>(x_offsets_[size_t(p)], word * per_word + s, spikes);
        int64_t at = p * tables_of_pixel() + s / Coefficients<bits>::count;
        for (int64_t i = 0; i < kLine; i += Coefficients<bits>::count, at++) {
          fired_[size_t(at)] = make_table<bits>(spikes + i, tables_ + at * kTable);
        }
      }
    }
  }

  template <class T>
  void load_spikes(int64_t offset, int64_t first, float* spikes) const {
    const int64_t there = offset < 0 ? 0 : std::clamp<int64_t>(k_.channels - first, 0, kLine);
    const T* x = static_cast<const T*>(k_.x) + offset + first * k_.x_strides[1];
    if (there == kLine) {
      FASTSNN_UNROLL
      for (int64_t c = 0; c < kLine; c++) spikes[c] = float(widen(x[c * k_.x_strides[1]]));
    } else {
      for (int64_t c = 0; c < kLine; c++) spikes[c] = c < there ? float(widen(x[c * k_.x_strides[1]])) : 0.0f;
    }
  }

  const float* table(int64_t row, int64_t tap) const {
    return tables_ + windows_[size_t(row * taps_ + tap)] * tables_of_pixel() * kTable;
  }

  void add_all(int64_t tap, const uint32_t* words) {
    const float* tables[kTileRows];
    for (int64_t r = 0; r < rows_; r++) tables[r] = table(r, tap);
    Strip strip{tables, words, sums_, count_, taps_ * words_ * kOutputs, blocks_ * kOutputs};
    int64_t rows = rows_;
    for (; rows >= kRows; rows -= kRows) {
      add_strip<kRows>(strip, blocks_);
      strip.tables += kRows;
      strip.sums += kRows * strip.sums_of_row;
    }
    for (; rows > 0; rows--) {
      add_strip<1>(strip, blocks_);
      strip.tables++;
      strip.sums += strip.sums_of_row;
    }
  }

  // The tables of each pixel that are not all zero; whether they are few.
  bool find_nonzero() {
    nonzero_.resize(fired_.size());
    ends_.assign(1, 0);
    int64_t n = 0;
    for (int64_t p = 0; p < pixels(); p++) {
      const uint8_t* fired = fired_.data() + p * tables_of_pixel();
      for (int64_t i = 0; i < tables_of_pixel(); i++) {
        nonzero_[size_t(n)] = int32_t(i);
        n += fired[i];
      }
      ends_.push_back(n);
    }
    return n * 100 <= int64_t(fired_.size()) * kSkipShare;
  }

  void skip_zeros(int64_t tap, const uint32_t* words) {
    int64_t block = 0;
    for (; block + kSkipBlocks <= blocks_; block += kSkipBlocks) skip_zeros<kSkipBlocks>(tap, words, block);
    for (; block < blocks_; block++) skip_zeros<1>(tap, words, block);
  }

  template <int blocks>
  void skip_zeros(int64_t tap, const uint32_t* words, int64_t block) {
    const int64_t of_block = taps_ * words_ * kOutputs;
    uint32_t* spread = spread_memory_.at_least(count_ * kNibbles * blocks * kOutputs);
    for (int b = 0; b < blocks; b++) {
      uint32_t* at = spread + b * kOutputs;
      for (int64_t w = 0; w < count_; w++) {
        Indices indices = load_indices(words + (block + b) * of_block + w * kOutputs);
        for (int nibble = 0; nibble < kNibbles; nibble++, at += blocks * kOutputs) {
          store(at, indices);
          indices = next_nibble(indices);
        }
      }
    }
    for (int64_t r = 0; r < rows_; r++) {
      const size_t pixel = size_t(windows_[size_t(r * taps_ + tap)]);
      add_nonzero<blocks>(table(r, tap), nonzero_.data() + ends_[pixel], ends_[pixel + 1] - ends_[pixel], spread,
                          sums_ + (r * blocks_ + block) * kOutputs);
    }
  }

  // A block at a time: positions that are neighbours in y share a cache line of each output.
  template <class T>
  void write() const {
    for (int64_t b = 0; b < blocks_; b++) {
      const int64_t first = (first_block_ + b) * kOutputs, n = std::min(kOutputs, k_.outputs - first);
      for (int64_t r = 0; r < rows_; r++) {
        const float* sums = sums_ + (r * blocks_ + b) * kOutputs;
        T* y = static_cast<T*>(k_.y) + y_offsets_[size_t(r)] + first * k_.y_strides[1];
        for (int64_t o = 0; o < n; o++) {
          narrow(finished(k_, sums[o], first + o), y[o * k_.y_strides[1]]);
        }
      }
    }
  }

  const PackedProduct& k_;
  const int64_t taps_, words_, chunk_, first_block_, blocks_;
  void (PackedTile::*make_tables_)(int64_t) = nullptr;
  void (PackedTile::*write_)() const = nullptr;
  int64_t rows_ = 0, count_ = 0;                         // of this tile; words of this round
  std::vector<int64_t> windows_;                         // [rows, taps]
  std::vector<int64_t> x_offsets_, y_offsets_, places_;  // of pixels, of rows; of pixels in x_offsets_
  std::vector<uint8_t> fired_;
  std::vector<int32_t> nonzero_;
  std::vector<int64_t> ends_;  // in nonzero_, of each pixel
  Growing<float> table_memory_, sums_memory_;
  Growing<uint32_t> spread_memory_;
  float *tables_ = nullptr, *sums_ = nullptr;
};

// Threads share the tiles, or where these are too few the blocks of outputs.
void packed_product(const PackedProduct& k, int threads) {
  const int64_t rows = k.batch * k.out.height * k.out.width;
  const int64_t blocks = (k.outputs + kOutputs - 1) / kOutputs;
  const int64_t work = elements({rows, blocks, k.channels, k.kernel.height, k.kernel.width});
  const auto part = [&](int64_t first_row, int64_t last_row, int64_t first_block, int64_t last_block) {
    PackedTile tile(k, first_block, last_block);
    for (int64_t r = first_row; r < last_row; r += kTileRows) tile.run(r, std::min(last_row, r + kTileRows));
  };
  if (rows >= kTileRows * threads) {
    parallel_chunks(rows, kTileRows, work, threads, [&](int64_t begin, int64_t end) { part(begin, end, 0, blocks); });
  } else {
    parallel_chunks(blocks, kBlocks, work, threads, [&](int64_t begin, int64_t end) { part(0, rows, begin, end); });
  }
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
