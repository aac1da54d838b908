#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cmath>
#include <memory>

#include "../core/bits.h"
#include "loops.h"
#include "standardize.h"

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

constexpr int64_t kTable = 16;      // sums that a nibble can ask for
constexpr int64_t kTileRows = 64;   // output positions whose tables are made together
constexpr int64_t kTileWords = 16;  // words of a linear layer's fan-in between two rounds of tables
constexpr int64_t kTapWords = 4;    // the same for each tap of a convolution

// 16 outputs: their sums, and their nibbles as indices into a table.
#if defined(__AVX512F__)
constexpr int kRows = 4, kBlocks = 4;  // of the inner loop: what fits in registers
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
FASTSNN_HD Table load_table(const float* table) { return {_mm512_load_ps(table)}; }
FASTSNN_HD void add(Sums& s, const Table& table, Indices i) {
  s.at = _mm512_add_ps(s.at, _mm512_permutexvar_ps(i.at, table.at));
}
FASTSNN_HD void add_to(float* total, Sums s) { _mm512_storeu_ps(total, _mm512_add_ps(_mm512_loadu_ps(total), s.at)); }
#elif defined(__AVX2__)
constexpr int kRows = 4, kBlocks = 1;
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
FASTSNN_HD void add_to(float* total, Sums s) {
  _mm256_storeu_ps(total, _mm256_add_ps(_mm256_loadu_ps(total), s.low));
  _mm256_storeu_ps(total + 8, _mm256_add_ps(_mm256_loadu_ps(total + 8), s.high));
}
#else
constexpr int kRows = 1, kBlocks = 1;
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
FASTSNN_HD Table load_table(const float* table) { return {table}; }
FASTSNN_HD void add(Sums& s, const Table& table, const Indices& i) {
  for (int64_t o = 0; o < kOutputs; o++) s.at[o] += table.at[i.at[o] & 15];
}
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

template <int bits>
FASTSNN_HD void make_table(const float* spikes, float* table) {
  static constexpr Coefficients<bits> c;
  for (int i = 0; i < kTable; i++) {
    float sum = c.at[0][i] * spikes[0] + c.at[1][i] * spikes[1];
    if constexpr (bits == 1) sum += c.at[2][i] * spikes[2] + c.at[3][i] * spikes[3];
    table[i] = sum;
  }
}

// Memory aligned for the widest vectors, that grows and forgets what it held.
class Scratch {
 public:
  float* at_least(int64_t n) {
    if (n > size_) {
      memory_.reset(new float[size_t(n) + 16]);
      at_ = memory_.get() + (64 - reinterpret_cast<uintptr_t>(memory_.get()) % 64) % 64 / sizeof(float);
      size_ = n;
    }
    return at_;
  }

 private:
  std::unique_ptr<float[]> memory_;
  float* at_ = nullptr;
  int64_t size_ = 0;
};

// Rows (output positions) against blocks of outputs, over `words` words of each tap.
struct Strip {
  const float* const* windows;  // [rows, taps]: tables of a row's input positions
  const uint32_t* words;        // of the first block and tap
  float* sums;                  // [rows, blocks, 16]
  int64_t taps, words_of_tap, words_of_block, sums_of_row;
};

template <int rows, int blocks>
void add_products(const Strip& strip, int64_t words) {
  Sums sums[rows][blocks];
  for (auto& row : sums) {
    for (Sums& s : row) s = no_sums();
  }
  for (int64_t tap = 0; tap < strip.taps; tap++) {
    const float* tables[rows];
    for (int r = 0; r < rows; r++) tables[r] = strip.windows[r * strip.taps + tap];
    const uint32_t* word = strip.words + tap * strip.words_of_tap;
    for (int64_t w = 0; w < words; w++, word += kOutputs) {
      Indices indices[blocks];
      for (int b = 0; b < blocks; b++) indices[b] = load_indices(word + b * strip.words_of_block);
      for (int nibble = 0; nibble < kNibbles; nibble++) {
        for (int r = 0; r < rows; r++) {
          const Table table = load_table(tables[r] + nibble * kTable);
          for (int b = 0; b < blocks; b++) add(sums[r][b], table, indices[b]);
        }
        for (int b = 0; b < blocks; b++) indices[b] = next_nibble(indices[b]);
      }
      for (int r = 0; r < rows; r++) tables[r] += kNibbles * kTable;
    }
  }
  for (int r = 0; r < rows; r++) {
    for (int b = 0; b < blocks; b++) add_to(strip.sums + r * strip.sums_of_row + b * kOutputs, sums[r][b]);
  }
}

template <int rows>
void add_strip(Strip strip, int64_t blocks, int64_t words) {
  for (; blocks >= kBlocks; blocks -= kBlocks) {
    add_products<rows, kBlocks>(strip, words);
    strip.words += kBlocks * strip.words_of_block;
    strip.sums += kBlocks * kOutputs;
  }
  for (; blocks > 0; blocks--) {
    add_products<rows, 1>(strip, words);
    strip.words += strip.words_of_block;
    strip.sums += kOutputs;
  }
}

// A tile of rows against a range of blocks of outputs.
template <class T, int bits>
class PackedTile {
 public:
  PackedTile(const PackedProduct& k, int64_t first_block, int64_t last_block)
      : k_(k),
        taps_(k.kernel.height * k.kernel.width),
        words_((k.channels * bits + 31) / 32),
        chunk_(std::min(words_, taps_ == 1 ? kTileWords : kTapWords)),
        first_block_(first_block),
        blocks_(last_block - first_block) {}

  void run(int64_t first_row, int64_t last_row) {
    rows_ = last_row - first_row;
    find_pixels(first_row);
    sums_ = sums_memory_.at_least(rows_ * blocks_ * kOutputs);
    std::fill_n(sums_, rows_ * blocks_ * kOutputs, 0.0f);
    for (int64_t word = 0; word < words_; word += chunk_) {
      const int64_t words = std::min(chunk_, words_ - word);
      make_tables(word, words);
      add_chunk(word, words);
    }
    for (int64_t r = 0; r < rows_; r++) write(first_row + r, sums_ + r * blocks_ * kOutputs);
  }

 private:
  struct Position {
    int64_t sample, row, column;
  };

  static Position position(int64_t index, Plane plane) {
    const int64_t line = index / plane.width;
    return {line / plane.height, line % plane.height, index % plane.width};
  }

  // The pixel of x under a tap, -1 outside.
  int64_t pixel(Position out, int64_t tap) const {
    const int64_t row = out.row * k_.stride.height - k_.padding.height + tap / k_.kernel.width * k_.dilation.height;
    const int64_t column = out.column * k_.stride.width - k_.padding.width + tap % k_.kernel.width * k_.dilation.width;
    const bool inside = row >= 0 && row < k_.in.height && column >= 0 && column < k_.in.width;
    return inside ? (out.sample * k_.in.height + row) * k_.in.width + column : -1;
  }

  // The pixels under the windows of the rows, each once; windows_ are places in that list.
  void find_pixels(int64_t first_row) {
    windows_.clear();
    for (int64_t r = 0; r < rows_; r++) {
      const Position out = position(first_row + r, k_.out);
      for (int64_t tap = 0; tap < taps_; tap++) windows_.push_back(pixel(out, tap));
    }
    pixels_ = windows_;
    std::sort(pixels_.begin(), pixels_.end());
    pixels_.erase(std::unique(pixels_.begin(), pixels_.end()), pixels_.end());
    for (int64_t& w : windows_) w = std::lower_bound(pixels_.begin(), pixels_.end(), w) - pixels_.begin();
  }

  void make_tables(int64_t word, int64_t words) {
    constexpr int64_t per_word = 32 / bits;
    const int64_t first = word * per_word, spikes = words * per_word;
    const int64_t size = words * kNibbles * kTable;
    float* tables = table_memory_.at_least(int64_t(pixels_.size()) * size);
    float* row = spike_memory_.at_least(spikes);
    for (size_t p = 0; p < pixels_.size(); p++) {
      const int64_t there = pixels_[p] < 0 ? 0 : std::min(spikes, k_.channels - first);
      load_spikes(pixels_[p], first, there, row);
      std::fill_n(row + there, spikes - there, 0.0f);
      float* table = tables + int64_t(p) * size;
      for (int64_t s = 0; s < spikes; s += Coefficients<bits>::count, table += kTable) make_table<bits>(row + s, table);
    }
    starts_.resize(windows_.size());
    for (size_t w = 0; w < windows_.size(); w++) starts_[w] = tables + windows_[w] * size;
  }

  void load_spikes(int64_t pixel, int64_t first, int64_t n, float* row) const {
    const Position at = position(pixel, k_.in);
    const T* x = static_cast<const T*>(k_.x) + at.sample * k_.x_strides[0] + first * k_.x_strides[1] +
                 at.row * k_.x_strides[2] + at.column * k_.x_strides[3];
    for (int64_t c = 0; c < n; c++) row[c] = float(widen(x[c * k_.x_strides[1]]));
  }

  void add_chunk(int64_t word, int64_t words) {
    const int64_t of_tap = words_ * kOutputs, of_block = taps_ * of_tap;
    Strip strip{starts_.data(),    k_.words + first_block_ * of_block + word * kOutputs, sums_, taps_, of_tap, of_block,
                blocks_ * kOutputs};
    int64_t rows = rows_;
    for (; rows >= kRows; rows -= kRows) {
      add_strip<kRows>(strip, blocks_, words);
      strip.windows += kRows * taps_;
      strip.sums += kRows * strip.sums_of_row;
    }
    for (; rows > 0; rows--) {
      add_strip<1>(strip, blocks_, words);
      strip.windows += taps_;
      strip.sums += strip.sums_of_row;
    }
  }

  void write(int64_t row, const float* sums) const {
    const Position at = position(row, k_.out);
    const int64_t first = first_block_ * kOutputs, n = std::min(blocks_ * kOutputs, k_.outputs - first);
    T* y = static_cast<T*>(k_.y) + at.sample * k_.y_strides[0] + first * k_.y_strides[1] + at.row * k_.y_strides[2] +
           at.column * k_.y_strides[3];
    for (int64_t o = 0; o < n; o++) {
      const float scaled = k_.scale ? sums[o] * k_.scale[first + o] : sums[o];
      narrow(k_.bias ? scaled + k_.bias[first + o] : scaled, y[o * k_.y_strides[1]]);
    }
  }

  const PackedProduct& k_;
  const int64_t taps_, words_, chunk_, first_block_, blocks_;
  int64_t rows_ = 0;
  std::vector<int64_t> windows_, pixels_;
  std::vector<const float*> starts_;
  Scratch table_memory_, spike_memory_, sums_memory_;
  float* sums_ = nullptr;
};

// Threads share the tiles, or where these are too few the blocks of outputs.
template <class T, int bits>
void packed_product_of(const PackedProduct& k, int threads) {
  const int64_t rows = k.batch * k.out.height * k.out.width;
  const int64_t blocks = (k.outputs + kOutputs - 1) / kOutputs;
  const int64_t work = rows * blocks * k.channels * k.kernel.height * k.kernel.width;
  const auto part = [&](int64_t first_row, int64_t last_row, int64_t first_block, int64_t last_block) {
    PackedTile<T, bits> tile(k, first_block, last_block);
    for (int64_t r = first_row; r < last_row; r += kTileRows) tile.run(r, std::min(last_row, r + kTileRows));
  };
  if (rows >= kTileRows * threads) {
    parallel_chunks(rows, kTileRows, work, threads, [&](int64_t begin, int64_t end) { part(begin, end, 0, blocks); });
  } else {
    parallel_chunks(blocks, kBlocks, work, threads, [&](int64_t begin, int64_t end) { part(0, rows, begin, end); });
  }
}

void packed_product(const PackedProduct& k, int threads) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    (k.bits == 1 ? packed_product_of<T, 1> : packed_product_of<T, 2>)(k, threads);
  });
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
