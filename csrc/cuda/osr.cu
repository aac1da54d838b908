#include "channels.h"
#include "moments.h"
#include "surrogate.h"

// OSR, alone and with the LIF behind it: one pass over x in forward, two in backward; sums in two stages. Where the
// step's own statistics may normalise, a second pass finds out whether they do, and ends at once where not. Under OTS
// the forward charges the neuron and sums u, and what fires is another pass.
namespace fastsnn {
namespace cuda {

using FASTSNN_ISA::Affine;
using FASTSNN_ISA::RelativeSums;
using FASTSNN_ISA::Row;
using FASTSNN_ISA::row_of;
using FASTSNN_ISA::Verdict;

// The two sums of a part: workspace is [parts, 2, channels]
__device__ __forceinline__ void put_part(const Part& part, double* workspace, double one, double other) {
  double* const to = workspace + 2 * part.block.index * part.k.channels + part.own();
  to[0] = one;
  to[part.k.channels] = other;
}

// What a channel's elements are summed relative to: its first of the part
template <class T>
__device__ __forceinline__ double origin_of(const Part& part, const void* x) {
  if (part.block.begin == part.block.end || part.own() >= part.k.channels) return 0.0;
  return widen(static_cast<const T*>(x)[part.place(part.block.begin, part.own())]);
}

// What all channels' verdicts, which the merge left at the beginning of the workspace, come to
__device__ __forceinline__ Verdict verdict_of_all(const OsrForward& k, Pair (&votes)[kThreads]) {
  Pair mine{0.0, 0.0};
#pragma unroll 1
  for (int64_t c = threadIdx.x; c < k.channels; c += kThreads) {
    const int verdict = int(k.workspace[c]);
    mine.first += verdict & 1;
    mine.second += verdict & 2;
  }
  votes[threadIdx.x] = mine;
  add_apart(votes, 1);
  const bool refused = votes[0].second > 0.0;
  return Verdict{votes[0].first > 0.0 && !refused, refused};
}

// use(at, y): what becomes of a thread's elements; y(c, x) are those from c on, normalised. Returns whether the block
// went over them.
template <class T, int V, class Use>
__device__ __forceinline__ bool forward_part(const OsrForward& k, const Tiles& tiles, bool second, const Use& use) {
  using S = typename StateOf<T>::type;
  using Affines = Columns<S, V, 3>;
  using Elements = Tile<V, S>;
  FASTSNN_SHARED(Affines, affines, 1);
  FASTSNN_SHARED(Elements, tile, 1);
  FASTSNN_SHARED(Pair, sums, kThreads);
  FASTSNN_SHARED(double, origin, kThreads);
  FASTSNN_SHARED(Bounds, bounds, 1);
  const Part part(tiles, bounds[0]);
  if (second) {
    const Verdict verdict = verdict_of_all(k, sums);
    if (part.block.index == 0 && part.keeps()) settle(k, part.own(), verdict);
    if (!verdict.exceeded) return false;
  }
  affines[0].fill_with(part, [&](int i, int64_t c) {
    const Affine affine = affine_of(k, c, second);
    affines[0].at[0][i] = S(affine.center);
    affines[0].at[1][i] = S(affine.factor);
    affines[0].at[2][i] = S(element(k.bias, k.learned, c));
  });
  const S *center = affines[0](part, 0), *factor = affines[0](part, 1), *shift = affines[0](part, 2);
  const bool adds = k.statistics && !second;
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
    if (!adds) return;
    add_tile<V>(part, row, sums, [&](int i) {
      const double d = double(tile[0].at[i]) - origin[threadIdx.x];
      return Pair{d, d * d};
    });
  });
  if (!adds) return true;
  add_apart(sums, tiles.width);
  const Pair all = sums[threadIdx.x];
  const Moments own = moments_of(double(part.block.end - part.block.begin), origin[threadIdx.x], all.first, all.second);
  if (part.keeps()) put_part(part, k.workspace, own.mean, own.m2);
  return true;
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    osr_forward_kernel(const OsrForward k, const Tiles tiles, const bool second) {
  using S = typename StateOf<T>::type;
  forward_part<T, V>(k, tiles, second, [&](int64_t at, const auto& normalized) {
    S y[V];
    normalized(0, y);
    store(static_cast<T*>(k.y) + at, y);
  });
}

// A step of the neurons on y, 16 bytes of their state after another, as registers allow; spikes wait in shared memory
template <class T, Reset reset, class R, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    osr_lif_forward_kernel(const Lif<S> p, const OsrForward norm, const LifForward k, const S threshold_prev,
                           const Tiles tiles, const bool second) {
  constexpr int N = V < kVector<S> ? V : kVector<S>;
  using Spikes = Pack<T, V>;
  FASTSNN_SHARED(Spikes, spikes, kThreads);
  forward_part<T, V>(norm, tiles, second, [&](int64_t first, const auto& normalized) {
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

// Adds a thread's values to its sums, which wait in shared memory: the elements need its registers.
template <int V, class S>
__device__ __forceinline__ void add_own(const S (&values)[V], RelativeSums (&sums)[kThreads]) {
  RelativeSums own = sums[threadIdx.x];
  if (own.n == 0.0) own.origin = double(values[0]);
#pragma unroll
  for (int j = 0; j < V; j++) {
    const double d = double(values[j]) - own.origin;
    own.sum += d;
    own.squares += d * d;
  }
  own.n += double(V);
  sums[threadIdx.x] = own;
}

// Charges the neurons with y; moments of a block's u go to u_workspace [blocks, 2].
template <class T, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    osr_charge_kernel(const Lif<S> p, const OsrCharge k, const S start, const Tiles tiles, const bool second) {
  constexpr int N = V < kVector<S> ? V : kVector<S>;
  FASTSNN_SHARED(RelativeSums, sums, kThreads);
  FASTSNN_SHARED(Moments, partial, kThreads);
  sums[threadIdx.x] = RelativeSums{0.0, 0.0, 0.0, 0.0};
  const bool charged = forward_part<T, V>(k, tiles, second, [&](int64_t first, const auto& normalized) {
#pragma unroll 1
    for (int c = 0; c < V; c += N) {
      S y[N], u[N];
      normalized(c, y);
      load_or<S>(k.v, first + c, start, u);
#pragma unroll
      for (int j = 0; j < N; j++) u[j] = charge(u[j], y[j], p);
      store(static_cast<S*>(k.u) + first + c, u);
      add_own(u, sums);
    }
  });
  if (!charged) return;
  const Moments own = merge_parts(kThreads, partial, [&](int64_t thread) { return sums[thread].moments(); });
  if (threadIdx.x > 0) return;
  k.u_workspace[2 * int64_t(blockIdx.x)] = own.mean;
  k.u_workspace[2 * int64_t(blockIdx.x) + 1] = own.m2;
}

// gradient(at, g): a thread's g of y
template <class T, int V, class Gradient>
__device__ __forceinline__ void reduce_part(const OsrReduce& k, const Tiles& tiles, const Gradient& gradient) {
  using S = typename StateOf<T>::type;
  using Elements = Tile<V, S>;
  FASTSNN_SHARED(Elements, x_tile, 1);
  FASTSNN_SHARED(Elements, g_tile, 1);
  FASTSNN_SHARED(Pair, sums, kThreads);
  FASTSNN_SHARED(Bounds, bounds, 1);
  const Part part(tiles, bounds[0]);
  const bool mine = part.own() < tiles.channels;
  const double mean = mine ? row_of(k, Row::mean)[part.own()] : 0.0;
  const double inverse = mine ? row_of(k, Row::inverse)[part.own()] : 0.0;
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
  if (part.keeps()) put_part(part, k.workspace, sums[threadIdx.x].first, sums[threadIdx.x].second);
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) osr_reduce_kernel(const OsrReduce k, const Tiles tiles) {
  reduce_part<T, V>(k, tiles, [&](int64_t at, auto& g) { load(static_cast<const T*>(k.g) + at, g); });
}

template <class T, int V, class S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    osr_lif_reduce_kernel(const Lif<S> params, const OsrReduce reduce, const LifBackward k, const int shape,
                          const Tiles tiles) {
  const Lif<S> p = reduce.threshold ? lif_at(params, reduce.threshold) : params;
  reduce_part<T, V>(reduce, tiles, [&](int64_t at, S(&g)[V]) {
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
  const auto of_step = [&](Row row) { return row_of(k, row); };
  vectors[0].fill(part, of_step(Row::mean), of_step(Row::inverse), of_step(Row::factor), k.means,
                  k.means + tiles.channels);
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

// The second stage: a block a channel. What becomes of its moments waits for the second pass where that decides.
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    osr_merge_kernel(const OsrForward k, const Tiles tiles, const bool decides) {
  FASTSNN_SHARED(Moments, partial, kThreads);
  const int64_t c = blockIdx.x;
  const Moments all = merge_parts(tiles.parts, partial, [&](int64_t i) {
    const double* part = k.workspace + 2 * i * tiles.channels + c;
    return Moments{double(tiles.begin(i + 1) - tiles.begin(i)), part[0], part[tiles.channels]};
  });
  if (threadIdx.x > 0) return;
  row_of(k, Row::mean)[c] = all.mean;
  row_of(k, Row::m2)[c] = all.m2;
  if (decides) {
    const Verdict verdict = verdict_of(k, c, all);
    k.workspace[c] = double(verdict.exceeded + 2 * verdict.refused);
  } else {
    settle(k, c, Verdict{false, false});
  }
}

// The same of u, over all blocks: one block
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    osr_charge_merge_kernel(const OsrCharge k, const Tiles tiles) {
  FASTSNN_SHARED(Moments, partial, kThreads);
  const Moments all = merge_parts(blocks_of(tiles), partial, [&](int64_t block) {
    const int64_t part = block % tiles.parts, others = tiles.channels - block / tiles.parts * tiles.width;
    const int64_t count = (tiles.begin(part + 1) - tiles.begin(part)) * (others < tiles.width ? others : tiles.width);
    return Moments{double(count), k.u_workspace[2 * block], k.u_workspace[2 * block + 1]};
  });
  if (threadIdx.x > 0) return;
  k.u_moments[0] = all.mean;
  k.u_moments[1] = all.m2;
}

__global__ void __launch_bounds__(kThreads, kBlocksPerSM) osr_total_kernel(const OsrReduce k, const Tiles tiles) {
  FASTSNN_SHARED(Pair, partial, kThreads);
  const int64_t c = blockIdx.x;
  Pair mine{0.0, 0.0};
#pragma unroll 1
  for (int64_t i = threadIdx.x; i < tiles.parts; i += kThreads) {
    mine.first += k.workspace[2 * i * tiles.channels + c];
    mine.second += k.workspace[(2 * i + 1) * tiles.channels + c];
  }
  partial[threadIdx.x] = mine;
  add_apart(partial, 1);
  if (threadIdx.x == 0) settle(k, c, partial[0].first, partial[0].second);
}

void need_workspace(const double* workspace) {
  if (!workspace) throw std::invalid_argument("sums need a workspace for those of their parts");
}

// pass(second): over all elements
template <class Pass>
void forward_passes(const OsrForward& k, const Tiles& tiles, const Stream& on, const Pass& pass) {
  if (k.statistics) need_workspace(k.workspace);
  pass(false);
  if (k.statistics) launch(osr_merge_kernel, k.channels, on, k, tiles, k.decides());
  if (k.decides()) pass(true);
}

void osr_forward(const OsrForward& k, const Stream& on) {
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_tile_vector<T>(k, all_aligned(k.x, k.y), [&](auto width) {
      constexpr int V = decltype(width)::value;
      const Tiles tiles = tiles_of<V>(k);
      forward_passes(k, tiles, on,
                     [&](bool second) { launch(osr_forward_kernel<T, V>, blocks_of(tiles), on, k, tiles, second); });
    });
  });
}

void osr_lif_forward(const LifParams& params, const OsrLifForward& k, const Stream& on) {
  const LifForward lif = k.neuron();
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    using S = typename StateOf<T>::type;
    with_rule(params, [&](auto reset, auto rule) {
      with_tile_vector<T>(k, all_aligned(k.x) && aligned(lif), [&](auto width) {
        constexpr int V = decltype(width)::value;
        const Tiles tiles = tiles_of<V>(k);
        forward_passes(k, tiles, on, [&](bool second) {
          launch(osr_lif_forward_kernel<T, decltype(reset)::value, RuleType<decltype(rule)::value>, V, S>,
                 blocks_of(tiles), on, lif_of<S>(params), k, lif, first_threshold<S>(params, lif), tiles, second);
        });
      });
    });
  });
}

void osr_charge(const LifParams& params, const OsrCharge& k, const Stream& on) {
  need_workspace(k.u_workspace);
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    using S = typename StateOf<T>::type;
    const Lif<S> p = lif_of<S>(params);
    const S start = Reset(params.reset) == Reset::hard ? p.v_reset : S(0);
    with_tile_vector<T>(k, all_aligned(k.x, k.v, k.u), [&](auto width) {
      constexpr int V = decltype(width)::value;
      const Tiles tiles = tiles_of<V>(k);
      forward_passes(k, tiles, on, [&](bool second) {
        launch(osr_charge_kernel<T, V, S>, blocks_of(tiles), on, p, k, start, tiles, second);
      });
      launch(osr_charge_merge_kernel, 1, on, k, tiles);
    });
  });
}

void osr_reduce(const OsrReduce& k, const Stream& on) {
  need_workspace(k.workspace);
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_tile_vector<T>(k, all_aligned(k.x, k.g), [&](auto width) {
      constexpr int V = decltype(width)::value;
      const Tiles tiles = tiles_of<V>(k);
      launch(osr_reduce_kernel<T, V>, blocks_of(tiles), on, k, tiles);
      launch(osr_total_kernel, k.channels, on, k, tiles);
    });
  });
}

void osr_lif_reduce(const LifParams& params, const OsrLifReduce& k, const Stream& on) {
  const LifBackward lif = k.neuron();
  need_workspace(k.workspace);
  with_dtype(k.dtype, [&](auto zero) {
    using T = decltype(zero);
    using S = typename StateOf<T>::type;
    with_tile_vector<T>(k, all_aligned(k.x, lif.g_spikes, lif.keep, lif.u, lif.g_x), [&](auto width) {
      constexpr int V = decltype(width)::value;
      const Tiles tiles = tiles_of<V>(k);
      launch(osr_lif_reduce_kernel<T, V, S>, blocks_of(tiles), on, lif_of<S>(params), k, lif, params.surrogate, tiles);
      launch(osr_total_kernel, k.channels, on, k, tiles);
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
