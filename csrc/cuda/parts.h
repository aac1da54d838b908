#pragma once

#include <cstring>

#include "vector.h"

// As in launch.h
#ifndef FASTSNN_PAIRED
#define FASTSNN_PAIRED 1
#endif

// Elements of a half type beside float32 state.
namespace fastsnn {
namespace cuda {

// V elements of T beside state: parts of 16 bytes of state, one or, of a half type, two. There a pair of threads shares
// 16 elements, and the first has 0-3 and 8-11, so that a request for one part takes whole sectors.
template <class T, int V>
struct Parts {
  using S = typename StateOf<T>::type;
  static constexpr int N = V < kVector<S> ? V : kVector<S>, count = V / N;
  static constexpr bool paired = FASTSNN_PAIRED && count > 1;
  static constexpr int apart = paired ? 2 * N : N;  // one part from the next
};

// Part c of an array
template <class T, class S, int V>
__device__ __forceinline__ auto part(S (&array)[V], int c) -> S (&)[Parts<T, V>::N] {
  return reinterpret_cast<S(&)[Parts<T, V>::N]>(array[c * Parts<T, V>::N]);
}

// 1 for the second thread of a pair
__device__ __forceinline__ int second() { return threadIdx.x & 1; }

// Between neighbours and the parts of a pair, either way: the threads swap half of what they have.
template <class T, int V>
__device__ __forceinline__ Pack<T, V> swapped(const Pack<T, V>& pack) {
  const auto own = FASTSNN_ISA::bit_cast<uint4>(pack);
  const unsigned pair = 3u << (threadIdx.x & 30);
  const unsigned x = __shfl_xor_sync(pair, second() ? own.x : own.z, 1);
  const unsigned y = __shfl_xor_sync(pair, second() ? own.y : own.w, 1);
  return FASTSNN_ISA::bit_cast<Pack<T, V>>(second() ? uint4{x, y, own.z, own.w} : uint4{own.x, own.y, x, y});
}

// Elements in the order of a thread's parts; from: where the first lies
template <int V, class T>
__device__ __forceinline__ Pack<T, V> load_parts(const T* from) {
  using Access = typename Pack<T, V>::Access;
  if constexpr (Parts<T, V>::paired) from += second() * (V / 2);
  const auto pack = FASTSNN_ISA::bit_cast<Pack<T, V>>(*reinterpret_cast<const Access*>(from));
  if constexpr (Parts<T, V>::paired) return swapped(pack);
  return pack;
}

template <class T, int V>
__device__ __forceinline__ void store_parts(T* to, Pack<T, V> pack) {
  if constexpr (Parts<T, V>::paired) {
    to += second() * (V / 2);
    pack = swapped(pack);
  }
  store(to, pack);
}

// Two neighbours in one register
__device__ __forceinline__ __half2 both(float f, float g, __half) { return __floats2half2_rn(f, g); }
__device__ __forceinline__ __nv_bfloat162 both(float f, float g, __nv_bfloat16) { return __floats2bfloat162_rn(f, g); }

// Part c of a pack, and back
template <class T, int V, int N, class S>
__device__ __forceinline__ void unpack(const Pack<T, V>& pack, int c, S (&to)[N]) {
#pragma unroll
  for (int j = 0; j < N; j++) to[j] = widen(pack.at[c * N + j]);
}

template <class T, int V, int N, class S>
__device__ __forceinline__ void repack(const S (&from)[N], int c, Pack<T, V>& pack) {
  if constexpr (Parts<T, V>::paired) {
#pragma unroll
    for (int j = 0; j < N; j += 2) {
      const auto two = both(from[j], from[j + 1], T{});
      std::memcpy(static_cast<void*>(pack.at + c * N + j), &two, sizeof(two));
    }
  } else {
#pragma unroll
    for (int j = 0; j < N; j++) narrow(from[j], pack.at[c * N + j]);
  }
}

// Optional state of a thread's elements, or `value`
template <class T, int V, class S>
__device__ __forceinline__ void load_state(const void* base, int64_t at, S value, S (&to)[V]) {
  using P = Parts<T, V>;
#pragma unroll
  for (int c = 0; c < P::count; c++) load_or<S>(base, at + c * P::apart, value, part<T>(to, c));
}

template <class T, int V, class S>
__device__ __forceinline__ void store_state(void* base, int64_t at, const S (&from)[V]) {
  using P = Parts<T, V>;
#pragma unroll
  for (int c = 0; c < P::count; c++) store_to<S>(base, at + c * P::apart, part<T>(from, c));
}

// The optional input at `base`, or 0
template <class T, int V, class S>
__device__ __forceinline__ void load_input(const void* base, int64_t at, S (&to)[V]) {
  const auto pack = base ? load_parts<V>(static_cast<const T*>(base) + at) : Pack<T, V>{};
#pragma unroll
  for (int c = 0; c < Parts<T, V>::count; c++) unpack(pack, c, part<T>(to, c));
}

template <class T, int V, class S>
__device__ __forceinline__ void store_output(void* base, int64_t at, const S (&from)[V]) {
  Pack<T, V> pack;
#pragma unroll
  for (int c = 0; c < Parts<T, V>::count; c++) repack(part<T>(from, c), c, pack);
  store_parts(static_cast<T*>(base) + at, pack);
}

// As for_each_vector, for elements that lie in parts; body(at, V): the first part begins at `at`.
template <class T, int V, class Body>
__device__ __forceinline__ void for_each_in_parts(int64_t n, const Body& body) {
  constexpr int threads = Parts<T, V>::paired ? 2 : 1;
  const int64_t own = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V;
  const int back = threads == 2 ? second() * V : 0;  // to where the pair's elements begin
  if (own - back + threads * V <= n) {
    body(own - back / 2, std::integral_constant<int, V>());
  } else {
    for (int64_t i = own; i < n && i < own + V; i++) body(i, std::integral_constant<int, 1>());
  }
}

}  // namespace cuda
}  // namespace fastsnn
