#include "../core/binary.h"
#include "mma.h"
#include "rows.h"
#include "sums.h"

// Binary weights, a block an output; and products of spikes with packed signs, whose bits become weights in registers:
// for few output positions a block is one of them with 16 outputs, else it is a tile of 64 by 64.
namespace fastsnn {
namespace cuda {

using namespace FASTSNN_ISA;

template <class T, int V, class S = typename StateOf<T>::type>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) binarize_forward_kernel(const BinarizeForward k) {
  FASTSNN_SHARED(double, partial, kThreads);
  const int64_t r = blockIdx.x;
  const T* w = static_cast<const T*>(k.weight) + r * k.cols;
  T* out = static_cast<T*>(k.out) + r * k.cols;
  S row[V];
  double sum = 0.0;
  for_each_column<V>(k.cols, [&](int64_t at) {
    load(w + at, row);
#pragma unroll
    for (int j = 0; j < V; j++) sum += fabs(double(row[j]));
  });
  const double mean = block_sum(sum, partial) / double(k.cols);
  const S scale = k.scaled ? S(mean) : S(1);
  for_each_column<V>(k.cols, [&](int64_t at) {
    load(w + at, row);
#pragma unroll
    for (int j = 0; j < V; j++) row[j] = scale * sign(row[j]);
    store(out + at, row);
  });
  if (threadIdx.x == 0) static_cast<double*>(k.scale)[r] = mean;
}

template <class T, int V, class S = typename StateOf<T>::type>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) binarize_backward_kernel(const BinarizeBackward k) {
  for_each_vector<V>(k.rows * k.cols, [&](int64_t at, auto width) {
    S w[decltype(width)::value], g[decltype(width)::value];
    load(static_cast<const T*>(k.weight) + at, w);
    load(static_cast<const T*>(k.g_out) + at, g);
#pragma unroll
    for (int j = 0; j < decltype(width)::value; j++) g[j] = straight_through(g[j], w[j]);
    store(static_cast<T*>(k.g_weight) + at, g);
  });
}

void binarize_forward(const BinarizeForward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_row_vector<T>(k.cols, all_aligned(k.weight, k.out),
                       [&](auto width) { launch(binarize_forward_kernel<T, decltype(width)::value>, k.rows, on, k); });
  });
}

void binarize_backward(const BinarizeBackward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_vector<T>(all_aligned(k.weight, k.g_out, k.g_weight), 1, k.rows * k.cols, [&](auto width) {
      constexpr int V = decltype(width)::value;
      launch(binarize_backward_kernel<T, V>, blocks_of<V>(k.rows * k.cols), on, k);
    });
  });
}

constexpr int kWord = 4;              // outputs whose words a thread loads together
constexpr int64_t kFewPositions = 8;  // up to which a tile would mostly be empty
constexpr int kTile = 64;             // output positions of a tile, and outputs

template <int bits>
constexpr int kChannels = 32 / bits;  // of a word

// A fan-in is below 2^31
__device__ __forceinline__ int taps_of(const PackedProduct& k) { return int(k.kernel.height * k.kernel.width); }
template <int bits>
__device__ __forceinline__ int words_of(const PackedProduct& k) {
  return int((k.channels + kChannels<bits> - 1) / kChannels<bits>);
}
FASTSNN_HD int64_t blocks_of_outputs(const PackedProduct& k) { return (k.outputs + kOutputs - 1) / kOutputs; }
FASTSNN_HD int64_t positions_of(const PackedProduct& k) { return k.batch * k.out.height * k.out.width; }

// Where in x the pixel under a tap begins, -1 outside
__device__ __forceinline__ int64_t pixel_of(const PackedProduct& k, Position out, int tap) {
  const Position at = under_tap(k, out, tap / int(k.kernel.width), tap % int(k.kernel.width));
  return inside(at, k.in) ? offset(at, k.x_strides) : -1;
}

// Channels `first` and on of a pixel, zeros beyond the last; V of them lie in one vector
template <int V, class T, int N>
__device__ __forceinline__ void load_spikes(const PackedProduct& k, int64_t pixel, int64_t first, T (&to)[N]) {
  const T* x = static_cast<const T*>(k.x);
  if constexpr (V > 1) {
    Pack<T, N> pack{};
    if (pixel >= 0 && first < k.channels)
      pack = bit_cast<Pack<T, N>>(*reinterpret_cast<const uint4*>(x + pixel + first));
#pragma unroll
    for (int j = 0; j < N; j++) to[j] = pack.at[j];
  } else {
#pragma unroll
    for (int j = 0; j < N; j++) {
      to[j] = pixel >= 0 && first + j < k.channels ? x[pixel + (first + j) * k.x_strides[1]] : T(0.0f);
    }
  }
}

template <int V>
__device__ __forceinline__ void load_words(const uint32_t* from, uint32_t (&words)[kWord]) {
  if constexpr (V > 1) {
    const uint4 pack = *reinterpret_cast<const uint4*>(from);
    words[0] = pack.x, words[1] = pack.y, words[2] = pack.z, words[3] = pack.w;
  } else {
#pragma unroll
    for (int o = 0; o < kWord; o++) words[o] = from[o];
  }
}

template <class T>
__device__ __forceinline__ void write(const PackedProduct& k, int64_t place, int64_t o, float sum) {
  narrow(finished(k, sum, o), static_cast<T*>(k.y)[place + o * k.y_strides[1]]);
}

// Adds the product of 4 outputs' words with the spikes of a pixel.
template <class T, int V, int bits>
__device__ __forceinline__ void add_word(const PackedProduct& k, int64_t pixel, int64_t first,
                                         const uint32_t (&words)[kWord], float (&sums)[kWord]) {
  [[maybe_unused]] constexpr int kUnrolled = V > 1 ? kChannels<bits> / V : 4;  // more single loads at once would spill
#pragma unroll kUnrolled
  for (int c = 0; c < kChannels<bits>; c += V) {
    T spikes[V];
    load_spikes<V>(k, pixel, first + c, spikes);
#pragma unroll
    for (int j = 0; j < V; j++) {
#pragma unroll
      for (int o = 0; o < kWord; o++) sums[o] += times<bits>(widen(spikes[j]), words[o] >> (c + j) * bits);
    }
  }
}

// Sums over the threads that hold the same outputs: in a warp, then over warps. A thread below 16 returns its output's.
__device__ __forceinline__ float sum_of_output(float (&sums)[kWord], float (&partial)[kThreads / 32 * kOutputs]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int o = 0; o < kWord; o++) {
    for (int distance = 16; distance >= kOutputs / kWord; distance /= 2) {
      sums[o] += __shfl_xor_sync(0xffffffffu, sums[o], distance);
    }
    if (lane < kOutputs / kWord) partial[warp * kOutputs + lane * kWord + o] = sums[o];
  }
  __syncthreads();
  float total = 0.0f;
  if (threadIdx.x < kOutputs) {
    for (int w = 0; w < kThreads / 32; w++) total += partial[w * kOutputs + threadIdx.x];
  }
  return total;
}

template <class T, int V, int bits>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) packed_few_kernel(const PackedProduct k) {
  constexpr int kThreadsOfWord = kOutputs / kWord;
  FASTSNN_SHARED(float, partial, kThreads / 32 * kOutputs);
  const int words = words_of<bits>(k), steps = taps_of(k) * words;
  const int64_t block = blockIdx.x % blocks_of_outputs(k);
  const Position out = position(blockIdx.x / blocks_of_outputs(k), k.out);
  const uint32_t* of_block = k.words + block * steps * kOutputs;
  float sums[kWord] = {};
  for (int step = threadIdx.x / kThreadsOfWord; step < steps; step += kThreads / kThreadsOfWord) {
    const int64_t pixel = pixel_of(k, out, step / words);
    if (pixel < 0) continue;
    uint32_t codes[kWord];
    load_words<V>(of_block + int64_t(step) * kOutputs + threadIdx.x % kThreadsOfWord * kWord, codes);
    add_word<T, V, bits>(k, pixel, step % words * kChannels<bits>, codes, sums);
  }
  const float total = sum_of_output(sums, partial);
  const int64_t o = block * kOutputs + threadIdx.x;
  if (threadIdx.x < kOutputs && o < k.outputs) write<T>(k, offset(out, k.y_strides), o, total);
}

// A tile's products for each kind of core. A cell holds kCell neighbouring channels of one position, a row of cells a
// word's channels and what keeps rows in different banks; a thread adds words of its own outputs to its own sums.

// Without tensor cores: 4 outputs by 4 positions a thread
template <class T, int V, int bits>
struct ScalarTile {
  using Cell = float;
  static constexpr int kCell = 1, kRow = kChannels<bits> + 4, kEach = kTile / 4;

  float sums[4][kWord] = {};

  static __device__ __forceinline__ Cell cell(const T* spikes) { return widen(spikes[0]); }
  static __device__ __forceinline__ int output() { return threadIdx.x % kEach * kWord; }

  __device__ __forceinline__ void add(const Cell* cells, const uint32_t* words) {
    uint32_t codes[kWord];
    load_words<V>(words, codes);
#pragma unroll 8
    for (int c = 0; c < kChannels<bits>; c++) {
#pragma unroll
      for (int r = 0; r < 4; r++) {
        const float spike = cells[(threadIdx.x / kEach + r * kEach) * kRow + c];
#pragma unroll
        for (int o = 0; o < kWord; o++) sums[r][o] += times<bits>(spike, codes[o] >> c * bits);
      }
    }
  }

  // body(position, output, sum), both in the tile
  template <class Body>
  __device__ __forceinline__ void each(const Body& body) const {
#pragma unroll
    for (int r = 0; r < 4; r++) {
#pragma unroll
      for (int o = 0; o < kWord; o++) body(int(threadIdx.x) / kEach + r * kEach, output() + o, sums[r][o]);
    }
  }
};

// With them: a warp 16 outputs by 32 positions, as 4 products of 16 by 8
template <class T, int bits>
struct TensorTile {
  using Cell = uint32_t;
  static constexpr int kCell = 2, kRow = kChannels<bits> / kCell + 4, kWide = 4;

  float sums[kWide][4] = {};

  static __device__ __forceinline__ Cell cell(const T* spikes) {
    struct Pair {
      T at[kCell];
    };
    return bit_cast<Cell>(Pair{{spikes[0], spikes[1]}});
  }
  static __device__ __forceinline__ int lane() { return threadIdx.x % 32; }
  static __device__ __forceinline__ int output() { return threadIdx.x / 32 % 4 * kOutputs + lane() / 4; }
  static __device__ __forceinline__ int first_position() { return threadIdx.x / 128 * (kTile / 2); }

  // The weights of two neighbouring codes
  static __device__ __forceinline__ uint32_t weights(uint32_t codes) {
    return weight_bits(bits, codes, kOne<T>, 15) | weight_bits(bits, codes >> bits, kOne<T> << 16, 31);
  }

  __device__ __forceinline__ void add(const Cell* cells, const uint32_t* words) {
    const int pair = lane() % 4;
    const uint32_t low = words[0] >> pair * 2 * bits, high = words[kOutputs / 2] >> pair * 2 * bits;
#pragma unroll
    for (int c = 0; c < kChannels<bits>; c += 16) {
      const uint32_t a[4] = {weights(low >> c * bits), weights(high >> c * bits), weights(low >> (c + 8) * bits),
                             weights(high >> (c + 8) * bits)};
#pragma unroll
      for (int w = 0; w < kWide; w++) {
        const Cell* row = cells + (first_position() + w * 8 + lane() / 4) * kRow + c / kCell + pair;
        const uint32_t b[2] = {row[0], row[4]};
        multiply_add<T>(sums[w], a, b);
      }
    }
  }

  template <class Body>
  __device__ __forceinline__ void each(const Body& body) const {
#pragma unroll
    for (int w = 0; w < kWide; w++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        body(first_position() + w * 8 + lane() % 4 * 2 + i % 2, output() + i / 2 * 8, sums[w][i]);
      }
    }
  }
};

// The spikes of a word's channels at every position of a tile
template <class T, int V, int bits, class Tile>
__device__ __forceinline__ void gather(const PackedProduct& k, const int64_t* pixels, int64_t first,
                                       typename Tile::Cell* cells) {
  constexpr int N = V > Tile::kCell ? V : Tile::kCell, kGroups = kChannels<bits> / N;
#pragma unroll 2
  for (int i = threadIdx.x; i < kTile * kGroups; i += kThreads) {
    // neighbours in memory are channels, or else most likely positions
    const int row = V > 1 ? i / kGroups : i % kTile, c = (V > 1 ? i % kGroups : i / kTile) * N;
    T spikes[N];
    load_spikes<V>(k, pixels[row], first + c, spikes);
#pragma unroll
    for (int j = 0; j < N; j += Tile::kCell) cells[row * Tile::kRow + (c + j) / Tile::kCell] = Tile::cell(spikes + j);
  }
}

template <class T, int V, int bits>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) packed_tile_kernel(const PackedProduct k) {
  using Tile = std::conditional_t<kTensorCores<T>, TensorTile<T, bits>, ScalarTile<T, V, bits>>;
  constexpr int kCells = kTile * Tile::kRow;
  FASTSNN_SHARED(typename Tile::Cell, cells, 2 * kCells);
  FASTSNN_SHARED(int64_t, places, kTile);
  const int words = words_of<bits>(k), taps = taps_of(k);
  const int64_t blocks = blocks_of_outputs(k), tiles = (blocks * kOutputs + kTile - 1) / kTile;
  const int64_t first_output = blockIdx.x % tiles * kTile, first_position = blockIdx.x / tiles * kTile;
  // what lies beyond the last block is the last block's, and not written
  const int64_t own = first_output + Tile::output(), block = own / kOutputs < blocks ? own / kOutputs : blocks - 1;
  const uint32_t* of_thread = k.words + block * taps * words * kOutputs + own % kOutputs;
  const bool placed = threadIdx.x < kTile && first_position + threadIdx.x < positions_of(k);
  const Position out = position(first_position + threadIdx.x, k.out);
  Tile tile;
  int half = 0;
  for (int tap = 0; tap < taps; tap++) {
    if (threadIdx.x < kTile) places[threadIdx.x] = placed ? pixel_of(k, out, tap) : -1;
    __syncthreads();
    for (int word = 0; word < words; word++, half = kCells - half, of_thread += kOutputs) {
      gather<T, V, bits, Tile>(k, places, int64_t(word) * kChannels<bits>, cells + half);
      __syncthreads();
      tile.add(cells + half, of_thread);
    }
  }
  if (threadIdx.x < kTile) places[threadIdx.x] = placed ? offset(out, k.y_strides) : -1;
  __syncthreads();
  tile.each([&](int p, int o, float sum) {
    if (places[p] >= 0 && first_output + o < k.outputs) write<T>(k, places[p], first_output + o, sum);
  });
}

// Calls f(T, V, bits): V is 16 bytes of T where a pixel's channels lie in whole such vectors and so do words, else 1.
template <class F>
void with_product(const PackedProduct& k, const F& f) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (sizeof(T) < sizeof(double)) {
      bool whole = all_aligned(k.x, k.words) && k.x_strides[1] == 1 && k.channels % kVector<T> == 0;
      for (const int side : {0, 2, 3}) whole = whole && k.x_strides[side] % kVector<T> == 0;
      with_vector<T>(whole, 1, k.channels, [&](auto width) {
        k.bits == 1 ? f(zero, width, std::integral_constant<int, 1>())
                    : f(zero, width, std::integral_constant<int, 2>());
      });
    }
  });
}

void packed_product(const PackedProduct& k, const Stream& on) {
  const int64_t positions = positions_of(k), blocks = blocks_of_outputs(k);
  with_product(k, [&](auto zero, auto width, auto bits) {
    using T = decltype(zero);
    constexpr int V = decltype(width)::value, B = decltype(bits)::value;
    if (positions <= kFewPositions) {
      launch(packed_few_kernel<T, V, B>, positions * blocks, on, k);
    } else {
      const int64_t tiles = (blocks * kOutputs + kTile - 1) / kTile * ((positions + kTile - 1) / kTile);
      launch(packed_tile_kernel<T, V, B>, tiles, on, k);
    }
  });
}

}  // namespace cuda
}  // namespace fastsnn
