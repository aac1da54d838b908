#pragma once

#include "../core/osr.h"
#include "sums.h"
#include "vector.h"

// Passes over [outer, channels, inner]. A block takes a part of one channel's elements or, where channels are last, of
// those of up to 32 vectors of channels; tile after tile of V neighbours a thread.
namespace fastsnn {
namespace cuda {

constexpr int kLanes = 32;         // vectors of channels in a tile, at most
constexpr int kLargestVector = 8;  // parts begin at a vector of any type
template <int V>
constexpr int kWidth = kLanes * V;  // channels of a tile, at most

struct Tiles {
  int64_t channels, inner, count, parts;  // count: elements of a channel
  int width, log_width;                   // channels of a tile: 1 where they are not last
  int64_t rows;                           // elements of each of these in a tile
  int64_t step, step_inside, wrap;        // how a thread's place moves, and by how much more past the end of `inner`

  __host__ __device__ int64_t begin(int64_t part) const {
    return part == parts ? count : count * part / parts / kLargestVector * kLargestVector;
  }
};

template <int V>
Tiles tiles_of(const Channels& k) {
  int log_width = 0;
  if (k.inner == 1) {
    while ((1 << log_width) < V || ((1 << log_width) < kWidth<V> && (1 << log_width) < k.channels)) log_width++;
  }
  const int width = 1 << log_width;
  const int64_t rows = kThreads * V / width, step_inside = rows % k.inner;
  return {k.channels,
          k.inner,
          k.outer * k.inner,
          k.parts,
          width,
          log_width,
          rows,
          rows / k.inner * k.channels * k.inner + step_inside,
          step_inside,
          (k.channels - 1) * k.inner};
}

__host__ __device__ inline int64_t blocks_of(const Tiles& k) { return (k.channels + k.width - 1) / k.width * k.parts; }

// What a block has to do, in shared memory: each thread reads it, and needs its registers for the elements; channel:
// the first of its tiles
struct Bounds {
  int64_t index, channel, begin, end;
};

struct Part {
  const Tiles& k;
  const Bounds& block;

  __device__ __forceinline__ Part(const Tiles& tiles, Bounds& shared) : k(tiles), block(shared) {
    if (threadIdx.x == 0) {
      const int64_t index = blockIdx.x % k.parts;
      shared = Bounds{index, blockIdx.x / k.parts * k.width, k.begin(index), k.begin(index + 1)};
    }
    __syncthreads();
  }

  // The channel whose sums a thread has
  __device__ __forceinline__ int64_t own() const { return block.channel + (threadIdx.x & (k.width - 1)); }

  // Whether it keeps them in the end
  __device__ __forceinline__ bool keeps() const { return int(threadIdx.x) < k.width && own() < k.channels; }

  __device__ __forceinline__ int64_t place(int64_t element, int64_t c) const {
    return (element / k.inner * k.channels + c) * k.inner + element % k.inner;
  }

  // body(at, there, row): a thread's V neighbours lie at `at`, if they are there; the tile begins at element `row`
  template <int V, class Body>
  __device__ __forceinline__ void each_tile(const Body& body) const {
    const int flat = int(threadIdx.x) * V, below = flat >> k.log_width;
    const int64_t c = block.channel + (flat & (k.width - 1));
    int64_t at = place(block.begin + below, c), inside = (block.begin + below) % k.inner;
#pragma unroll 1
    for (int64_t row = block.begin; row < block.end; row += k.rows) {
      body(at, c < k.channels && row + below < block.end, row);
      at += k.step;
      inside += k.step_inside;
      if (inside >= k.inner) {
        inside -= k.inner;
        at += k.wrap;
      }
    }
  }
};

// A tile in shared memory: written V neighbours a thread, read by the threads of each element's channel.
template <int V, class S>
struct alignas(16) Tile {
  S at[kThreads * V];

  __device__ __forceinline__ void put(const S (&x)[V]) {
#pragma unroll
    for (int j = 0; j < V; j++) at[threadIdx.x * V + j] = x[j];
  }
};

// Adds term(i) of the elements of a tile that the part has to the sums of each thread's own channel; i is where they
// lie in the tile. The sums are in shared memory: a thread needs its registers for the elements.
template <int V, class Term>
__device__ __forceinline__ void add_tile(const Part& part, int64_t row, Pair (&sums)[kThreads], const Term& term) {
  __syncthreads();
  Pair sum = sums[threadIdx.x];
#pragma unroll
  for (int j = 0; j < V; j++) {
    const int i = j * kThreads + int(threadIdx.x);
    if (row + (i >> part.k.log_width) < part.block.end) {
      const Pair more = term(i);
      sum.first += more.first;
      sum.second += more.second;
    }
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
}

// Vectors over a block's channels, one value an element of a thread's V
template <class S, int V, int N>
struct alignas(16) Columns {
  S at[N][kWidth<V>];

  template <class... Vectors>
  __device__ __forceinline__ void fill(const Part& part, const Vectors*... vectors) {
    fill_with(part, [&](int i, int64_t c) {
      int n = 0;
      ((at[n++][i] = S(vectors[c])), ...);
    });
  }

  // put(i, c): the vectors' i-th elements, of channel c
  template <class Put>
  __device__ __forceinline__ void fill_with(const Part& part, const Put& put) {
    const int i = int(threadIdx.x), wanted = part.k.width < V ? V : part.k.width;
    const int64_t c = part.block.channel + (i & (part.k.width - 1));
    if (i < wanted && c < part.k.channels) put(i, c);
    __syncthreads();
  }

  // The n-th vector, from this thread's first element on
  __device__ __forceinline__ const S* operator()(const Part& part, int n) const {
    return at[n] + (int(threadIdx.x) * V & (part.k.width - 1));
  }
};

// Calls f(V): 16 bytes of T where every pointer is aligned and rows or channels are made of such vectors, else 1.
template <class T, class F>
void with_tile_vector(const Channels& k, bool aligned, const F& f) {
  with_vector<T>(aligned && (k.inner == 1 ? k.channels : k.inner) % kVector<T> == 0, 1, k.outer, f);
}

}  // namespace cuda
}  // namespace fastsnn
