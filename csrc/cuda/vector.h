#pragma once

#include <type_traits>

#include "launch.h"

// A thread owns V neighbouring elements: 16 bytes of the input, or for LIF of its state, where addresses allow, else
// one.
namespace fastsnn {
namespace cuda {

using FASTSNN_ISA::StateOf;

template <class T>
constexpr int kVector = 16 / int(sizeof(T));

// N elements as one access
template <class P, int N>
struct alignas(sizeof(P) * N) Pack {
  using Access = std::conditional_t<N == 1, P, std::conditional_t<sizeof(P) * N == sizeof(uint2), uint2, uint4>>;
  static_assert(sizeof(P) * N == sizeof(Access), "an access is one element, 8 or 16 bytes");
  P at[N];
};

__device__ __forceinline__ float widen(float f) { return f; }
__device__ __forceinline__ double widen(double f) { return f; }
__device__ __forceinline__ float widen(__half f) { return __half2float(f); }
__device__ __forceinline__ float widen(__nv_bfloat16 f) { return __bfloat162float(f); }
__device__ __forceinline__ void narrow(float f, float& out) { out = f; }
__device__ __forceinline__ void narrow(double f, double& out) { out = f; }
__device__ __forceinline__ void narrow(float f, __half& out) { out = __float2half_rn(f); }
__device__ __forceinline__ void narrow(float f, __nv_bfloat16& out) { out = __float2bfloat16_rn(f); }

// V elements of P in accesses of at most 16 bytes
template <int V, class P, class S>
__device__ __forceinline__ void load(const P* from, S (&to)[V]) {
  constexpr int N = V < kVector<P> ? V : kVector<P>;
#pragma unroll
  for (int c = 0; c < V; c += N) {
    using Packed = Pack<P, N>;
    const auto pack = FASTSNN_ISA::bit_cast<Packed>(*reinterpret_cast<const typename Packed::Access*>(from + c));
#pragma unroll
    for (int j = 0; j < N; j++) to[c + j] = widen(pack.at[j]);
  }
}

template <class P, int N>
__device__ __forceinline__ void store(P* to, const Pack<P, N>& pack) {
  using Access = typename Pack<P, N>::Access;
  // a plain assignment may be split into its elements inside loops
  __stwb(reinterpret_cast<Access*>(to), FASTSNN_ISA::bit_cast<Access>(pack));
}

template <int V, class P, class S>
__device__ __forceinline__ void store(P* to, const S (&from)[V]) {
  constexpr int N = V < kVector<P> ? V : kVector<P>;
#pragma unroll
  for (int c = 0; c < V; c += N) {
    Pack<P, N> pack;
#pragma unroll
    for (int j = 0; j < N; j++) narrow(from[c + j], pack.at[j]);
    store(to + c, pack);
  }
}

template <int V, class S>
__device__ __forceinline__ void fill(S value, S (&to)[V]) {
#pragma unroll
  for (int j = 0; j < V; j++) to[j] = value;
}

// The optional input at `base`, or `value`
template <class P, int V, class S>
__device__ __forceinline__ void load_or(const void* base, int64_t at, S value, S (&to)[V]) {
  if (base) {
    load(static_cast<const P*>(base) + at, to);
  } else {
    fill(value, to);
  }
}

template <class P, int V, class S>
__device__ __forceinline__ void store_to(void* base, int64_t at, const S (&from)[V]) {
  if (base) store(static_cast<P*>(base) + at, from);
}

// Runs body(at, V) for a thread's elements; what does not fill a vector runs one by one.
template <int V, class Body>
__device__ __forceinline__ void for_each_vector(int64_t n, const Body& body) {
  const int64_t at = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V;
  if (at + V <= n) {
    body(at, std::integral_constant<int, V>());
  } else {
    for (int64_t i = at; i < n; i++) body(i, std::integral_constant<int, 1>());
  }
}

template <class... Pointers>
bool all_aligned(Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

// Calls f(V): 16 bytes of T where every pointer is aligned and so is every row of a sequence, else 1.
template <class T, class F>
void with_vector(bool aligned, int64_t T_steps, int64_t n, const F& f) {
  if (aligned && (T_steps == 1 || n % kVector<T> == 0)) {
    f(std::integral_constant<int, kVector<T>>());
  } else {
    f(std::integral_constant<int, 1>());
  }
}

// Calls f(V) as with_vector, where no thread may have less than V elements.
template <class T, class F>
void with_whole_vectors(bool aligned, int64_t n, const F& f) {
  with_vector<T>(aligned && n % kVector<T> == 0, 1, n, f);
}

template <int V>
FASTSNN_HD int64_t blocks_of(int64_t n) {
  constexpr int64_t per_block = int64_t(kThreads) * V;
  return n / per_block + (n % per_block != 0);
}

}  // namespace cuda
}  // namespace fastsnn
