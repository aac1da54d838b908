#include "channels.h"
#include "moments.h"
#include "surrogate.h"

// OSR, alone and with the LIF behind it: one pass over x in forward, two in backward; sums in two stages.
namespace fastsnn {
namespace cuda {

// Where a part's two sums belong: in the room, or where there is one part in the results
struct Targets {
  double *first, *second;  // [channels] of every part
  int64_t stride;

  __device__ __forceinline__ void put(const Part& part, double one, double other) const {
    const int64_t at = part.block.index * stride + part.own();
    first[at] = one;
    second[at] = other;
  }
};

Targets targets_of(const Channels& k, double* room, double* first, double* second) {
  if (k.parts == 1) return {first, second, 0};
  if (!room) throw std::invalid_argument("several parts need room for their sums");
  return {room, room + k.channels, 2 * k.channels};
}

// What a channel's elements are summed relative to: its first of the part
template <class T>
__device__ __forceinline__ double origin_of(const Part& part, const void* x) {
  if (part.block.begin == part.block.end || part.own() >= part.k.channels) return 0.0;
  return widen(static_cast<const T*>(x)[part.place(part.block.begin, part.own())]);
}

// use(at, y): what becomes of a thread's elements; y(c, x) are those from c on, normalised
template <class T, int V, class Use>
__device__ __forceinline__ void forward_part(const OsrForward& k, const Tiles& tiles, const Targets& to,
                                             const Use& use) {
  using S = typename StateOf<T>::type;
  using Affine = Columns<S, V, 3>;
  using Elements = Tile<V, S>;
  FASTSNN_SHARED(Affine, affine, 1);
  FASTSNN_SHARED(Elements, tile, 1);
  FASTSNN_SHARED(Pair, sums, kThreads);
  FASTSNN_SHARED(double, origin, kThreads);
  FASTSNN_SHARED(Bounds, bounds, 1);
  const Part part(tiles, bounds[0]);
  affine[0].fill(part, k.center, k.factor, k.shift);
  const S *center = affine[0](part, 0), *factor = affine[0](part, 1), *shift = affine[0](part, 2);
  sums[threadIdx.x] = Pair{0.0, 0.0};
  origin[threadIdx.x] = origin_of<T>(part, k.x);
  part.each_tile<V>([&](int64_t at, bool there, int64_t row) {
    if (there) {
      S x[V];
      load(static_cast<const T*>(k.x) + at, x);
      tile[0].put(x);
      use(at, [&](int c, auto& y) {
        constexpr int N = sizeof(y) / sizeof(S);
#pragma unroll
        for (int j = 0; j < N; j++) {
          y[j] = normalize(tile[0].at[threadIdx.x * V + c + j], center[c + j], factor[c + j], shift[c + j]);
        }
      });
    }
    if (!k.mean) return;
    add_tile<V>(part, row, sums, [&](int i) {
      const double d = double(tile[0].at[i]) - origin[threadIdx.x];
      return Pair{d, d * d};
    });
  });
  if (!k.mean) return;
  add_apart(sums, tiles.width);
  const Pair all = sums[threadIdx.x];
  const Moments own = moments_of(double(part.block.end - part.block.begin), origin[threadIdx.x], all.first, all.second);
  if (part.keeps()) to.put(part, own.mean, own.m2);
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    osr_forward_kernel(const OsrForward k, const Tiles tiles, const Targets to) {
  using S = typename StateOf<T>::type;
  forward_part<T, V>(k, tiles, to, [&](int64_t at, const auto& normalized) {
    S y[V];
    normalized(0, y);
    store(static_cast<T*>(k.y) + at, y);
  });
}

// A step of the neurons on y, 16 bytes of their state after another, as registers allow; spikes wait in shared memory
template <class T, Reset reset, class R, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    osr_lif_forward_kernel(const Lif<S> p, const OsrForward norm, const LifForward k, const S threshold_prev,
                           const Tiles tiles, const Targets to) {
  constexpr int N = V < kVector<S> ? V : kVector<S>;
  using Spikes = Pack<T, V>;
  FASTSNN_SHARED(Spikes, spikes, kThreads);
  forward_part<T, V>(norm, tiles, to, [&](int64_t first, const auto& normalized) {
#pragma unroll 1
    for (int c = 0; c < V; c += N) {
      const int64_t at = first + c;
      S x[N], keep[N], u[N], m[kRows<R>][N];
      normalized(c, x);
      load_or<S>(k.potential, at, initial_v<reset>(p), u);
      load_or<S>(k.keep, at, S(1), keep);
      load_slots<R>(k.slots, at, m);
      advance_all<reset, R>(p, keep, threshold_prev, k.first, x, u, m);
#pragma unroll
      for (int j = 0; j < N; j++) narrow(x[j], spikes[threadIdx.x].at[c + j]);
      store(static_cast<S*>(k.u_last) + at, u);
      if constexpr (R::traced) store(static_cast<S*>(k.slots_out[0]) + at, m[0]);
      store_slots<R>(k.slots_out, at, m);
    }
    store(static_cast<T*>(k.spikes) + first, spikes[threadIdx.x]);
  });
}

// gradient(at, g): a thread's g of y
template <class T, int V, class Gradient>
__device__ __forceinline__ void reduce_part(const OsrReduce& k, const Tiles& tiles, const Targets& to,
                                            const Gradient& gradient) {
  using S = typename StateOf<T>::type;
  using Elements = Tile<V, S>;
  FASTSNN_SHARED(Elements, x_tile, 1);
  FASTSNN_SHARED(Elements, g_tile, 1);
  FASTSNN_SHARED(Pair, sums, kThreads);
  FASTSNN_SHARED(Bounds, bounds, 1);
  const Part part(tiles, bounds[0]);
  const bool mine = part.own() < tiles.channels;
  const double mean = mine ? k.mean[part.own()] : 0.0, inverse = mine ? k.inverse[part.own()] : 0.0;
  sums[threadIdx.x] = Pair{0.0, 0.0};
  part.each_tile<V>([&](int64_t at, bool there, int64_t row) {
    if (there) {
      S values[V];
      load(static_cast<const T*>(k.x) + at, values);
      x_tile[0].put(values);
      gradient(at, values);
      g_tile[0].put(values);
    }
    add_tile<V>(part, row, sums, [&](int i) {
      const double g = double(g_tile[0].at[i]);
      return Pair{g, g * normal(double(x_tile[0].at[i]), mean, inverse)};
    });
  });
  add_apart(sums, tiles.width);
  if (part.keeps()) to.put(part, sums[threadIdx.x].first, sums[threadIdx.x].second);
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    osr_reduce_kernel(const OsrReduce k, const Tiles tiles, const Targets to) {
  reduce_part<T, V>(k, tiles, to, [&](int64_t at, auto& g) { load(static_cast<const T*>(k.g) + at, g); });
}

template <class T, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    osr_lif_reduce_kernel(const Lif<S> p, const OsrReduce reduce, const LifBackward k, const int shape,
                          const Tiles tiles, const Targets to) {
  reduce_part<T, V>(reduce, tiles, to, [&](int64_t at, S(&g)[V]) {
    S keep[V], u[V], sg[V];
    load(static_cast<const S*>(k.u) + at, u);
    surrogates(shape, p, u, sg);
    load_or<S>(k.keep, at, S(1), keep);
    load(static_cast<const T*>(k.g_spikes) + at, g);
#pragma unroll
    for (int j = 0; j < V; j++) g[j] = online_gradient(p, g[j], keep[j], sg[j]);
    store(static_cast<T*>(k.g_x) + at, g);
  });
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) osr_gradient_kernel(const OsrGradient k, const Tiles tiles) {
  using S = typename StateOf<T>::type;
  using Vectors = Columns<double, V, 5>;
  FASTSNN_SHARED(Vectors, vectors, 1);
  FASTSNN_SHARED(Bounds, bounds, 1);
  const Part part(tiles, bounds[0]);
  vectors[0].fill(part, k.mean, k.inverse, k.factor, k.means, k.means + tiles.channels);
  const auto of = [&](int n) { return vectors[0](part, n); };
  const double *mean = of(0), *inverse = of(1), *factor = of(2), *mean_g = of(3), *mean_g_xh = of(4);
  part.each_tile<V>([&](int64_t at, bool there, int64_t) {
    if (!there) return;
    S x[V], g[V];
    load(static_cast<const T*>(k.x) + at, x);
    load(static_cast<const T*>(k.g) + at, g);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const double xh = normal(double(x[j]), mean[j], inverse[j]);
      g[j] = S(FASTSNN_ISA::osr_gradient(double(g[j]), xh, factor[j], mean_g[j], mean_g_xh[j]));
    }
    store(static_cast<T*>(k.g_x) + at, g);
  });
}

// The second stage: a block a channel
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    osr_merge_kernel(const Tiles tiles, const double* room, double* mean, double* m2) {
  FASTSNN_SHARED(Moments, partial, kThreads);
  const int64_t c = blockIdx.x;
  const Moments all = merge_parts(tiles.parts, partial, [&](int64_t i) {
    const double* part = room + 2 * i * tiles.channels + c;
    return Moments{double(tiles.begin(i + 1) - tiles.begin(i)), part[0], part[tiles.channels]};
  });
  if (threadIdx.x > 0) return;
  mean[c] = all.mean;
  m2[c] = all.m2;
}

__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    osr_total_kernel(const Tiles tiles, const double* room, double* sums) {
  FASTSNN_SHARED(Pair, partial, kThreads);
  const int64_t c = blockIdx.x;
  Pair mine{0.0, 0.0};
#pragma unroll 1
  for (int64_t i = threadIdx.x; i < tiles.parts; i += kThreads) {
    mine.first += room[2 * i * tiles.channels + c];
    mine.second += room[(2 * i + 1) * tiles.channels + c];
  }
  partial[threadIdx.x] = mine;
  add_apart(partial, 1);
  if (threadIdx.x > 0) return;
  sums[c] = partial[0].first;
  sums[tiles.channels + c] = partial[0].second;
}

void merge_room(const OsrForward& k, const Tiles& tiles, const Stream& on) {
  if (k.mean && k.parts > 1) launch(osr_merge_kernel, k.channels, on, tiles, k.room, k.mean, k.m2);
}

void add_room(const OsrReduce& k, const Tiles& tiles, const Stream& on) {
  if (k.parts > 1) launch(osr_total_kernel, k.channels, on, tiles, k.room, k.sums);
}

Targets targets_of(const OsrForward& k) { return k.mean ? targets_of(k, k.room, k.mean, k.m2) : Targets{}; }
Targets targets_of(const OsrReduce& k) { return targets_of(k, k.room, k.sums, k.sums + k.channels); }

void osr_forward(const OsrForward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_tile_vector<T>(k, all_aligned(k.x, k.y), [&](auto width) {
      constexpr int V = decltype(width)::value;
      const Tiles tiles = tiles_of<V>(k);
      launch(osr_forward_kernel<T, V>, blocks_of(tiles), on, k, tiles, targets_of(k));
      merge_room(k, tiles, on);
    });
  });
}

void osr_lif_forward(const LifParams& params, const OsrForward& k, const LifForward& lif, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    using S = typename StateOf<T>::type;
    with_rule(params, [&](auto reset, auto rule) {
      with_tile_vector<T>(k, all_aligned(k.x) && aligned(lif), [&](auto width) {
        constexpr int V = decltype(width)::value;
        const Tiles tiles = tiles_of<V>(k);
        launch(osr_lif_forward_kernel<T, decltype(reset)::value, RuleType<decltype(rule)::value>, V, S>,
               blocks_of(tiles), on, lif_of<S>(params), k, lif, first_threshold<S>(params, lif), tiles, targets_of(k));
        merge_room(k, tiles, on);
      });
    });
  });
}

void osr_reduce(const OsrReduce& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_tile_vector<T>(k, all_aligned(k.x, k.g), [&](auto width) {
      constexpr int V = decltype(width)::value;
      const Tiles tiles = tiles_of<V>(k);
      launch(osr_reduce_kernel<T, V>, blocks_of(tiles), on, k, tiles, targets_of(k));
      add_room(k, tiles, on);
    });
  });
}

void osr_lif_reduce(const LifParams& params, const OsrReduce& k, const LifBackward& lif, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    using S = typename StateOf<T>::type;
    with_tile_vector<T>(k, all_aligned(k.x, lif.g_spikes, lif.keep, lif.u, lif.g_x), [&](auto width) {
      constexpr int V = decltype(width)::value;
      const Tiles tiles = tiles_of<V>(k);
      launch(osr_lif_reduce_kernel<T, V, S>, blocks_of(tiles), on, lif_of<S>(params), k, lif, params.surrogate, tiles,
             targets_of(k));
      add_room(k, tiles, on);
    });
  });
}

void osr_gradient(const OsrGradient& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_tile_vector<T>(k, all_aligned(k.x, k.g, k.g_x), [&](auto width) {
      constexpr int V = decltype(width)::value;
      const Tiles tiles = tiles_of<V>(k);
      launch(osr_gradient_kernel<T, V>, blocks_of(tiles), on, k, tiles);
    });
  });
}

}  // namespace cuda
}  // namespace fastsnn
