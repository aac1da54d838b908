#pragma once

#include "../core/lif.h"
#include "vector.h"

// What LIF forward and backward share.
namespace fastsnn {
namespace cuda {

using namespace FASTSNN_ISA;

// v[0]: v_reset, or 0 under soft reset
template <Reset reset, class S>
FASTSNN_HD S initial_v(const Lif<S>& p) {
  return reset == Reset::hard ? p.v_reset : S(0);
}

// The neuron at the threshold of a step
template <class S>
__device__ __forceinline__ Lif<S> lif_at(Lif<S> p, const double* threshold) {
  p.threshold = S(*threshold);
  return p;
}

// NaN, which nothing reaches, where the potential was already reset
template <class S, class K>
S first_threshold(const LifParams& p, const K& k) {
  return k.potential_is_v || !k.potential ? std::numeric_limits<S>::quiet_NaN() : S(p.threshold);
}

// Slots of a thread's neurons are [slot][neuron]; of none there is one, which nothing reads.
template <class R>
constexpr int kRows = R::count > 0 ? R::count : 1;

template <class R, int V, class S>
__device__ __forceinline__ Slots<R, S> slots_of(const S (&m)[kRows<R>][V], int neuron) {
  Slots<R, S> own;
#pragma unroll
  for (int i = 0; i < R::count; i++) own.at[i] = m[i][neuron];
  return own;
}

template <class R, int V, class S>
__device__ __forceinline__ void load_slots(const void* const (&slots)[kMostSlots], int64_t at, S (&m)[kRows<R>][V]) {
#pragma unroll
  for (int i = 0; i < R::count; i++) load_or<S>(slots[i], at, S(0), m[i]);
}

// The slots but the trace, which every step stores
template <class R, int V, class S>
__device__ __forceinline__ void store_slots(void* const (&slots)[kMostSlots], int64_t at, const S (&m)[kRows<R>][V]) {
#pragma unroll
  for (int i = R::traced; i < R::count; i++) store_to<S>(slots[i], at, m[i]);
}

// One step of a thread's neurons: x becomes s; u and the slots move on.
template <Reset reset, class R, int V, class S>
__device__ __forceinline__ void advance_all(const Lif<S>& p, const S (&keep)[V], S threshold_prev, bool first,
                                            S (&x)[V], S (&u)[V], S (&m)[kRows<R>][V]) {
#pragma unroll
  for (int j = 0; j < V; j++) {
    Slots<R, S> own = slots_of<R>(m, j);
    const auto o = advance<reset, R>(p, x[j], keep[j], u[j], threshold_prev, first, own);
    x[j] = o.s;
    u[j] = o.u;
#pragma unroll
    for (int i = 0; i < R::count; i++) m[i][j] = own.at[i];
  }
}

// The same for u alone, from x, which is lost
template <Reset reset, class R, int V, class S>
__device__ __forceinline__ void advance_potentials(const Lif<S>& p, S threshold_prev, S (&x)[V], S (&u)[V],
                                                   S (&m)[kRows<R>][V]) {
  S keep[V];
  fill(S(1), keep);
  advance_all<reset, R>(p, keep, threshold_prev, false, x, u, m);
}

template <Reset reset, class R, int V, class S>
__device__ __forceinline__ S (&potentials_after(const Lif<S>& p, const S (&u)[V], const S (&m)[kRows<R>][V], S (&v)[V]))
    [V] {
#pragma unroll
      for (int j = 0; j < V; j++) {
        Slots<R, S> own = slots_of<R>(m, j);
        v[j] = R::template settle<reset>(p, u[j], u[j] >= p.threshold, own);
      }
      return v;
    }

template <class F>
void with_reset(const LifParams& p, const F& f) {
  if (Reset(p.reset) == Reset::hard) {
    f(std::integral_constant<Reset, Reset::hard>());
  } else {
    f(std::integral_constant<Reset, Reset::soft>());
  }
}

// A rule's code -> the rule with the slots that drive spikes alone
template <class Code>
using DynamicsOf = typename RuleType<Code::value>::Dynamics;

// Calls f(reset, rule) of a neuron's rule.
template <class F>
void with_rule(const LifParams& p, const F& f) {
  FASTSNN_ISA::with_rule(p.rule, Reset(p.reset) == Reset::hard, [&](auto rule, auto reset) { f(reset, rule); });
}

// Whether every operand that a struct declares begins at 16 bytes
struct Aligned {
  bool all = true;

  template <class T>
  void operator()(const char*, T* at, Holds, int64_t, Need = Need::always) {
    all = all && all_aligned(at);
  }
  template <class T, size_t most>
  void operator()(const char*, T* (&slots)[most], const SlotsTaken&) {
    for (T* at : slots) all = all && all_aligned(at);
  }
  void require(bool, const char*) const {}
};

template <class K>
bool aligned(K k) {
  Aligned found;
  k.operands(found);
  return found.all;
}

}  // namespace cuda
}  // namespace fastsnn
