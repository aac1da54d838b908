#pragma once

#include "../core/stgr.h"
#include "loops.h"

// One pass over a parameter: nine reads and writes an element.
namespace fastsnn {
namespace FASTSNN_ISA {

template <class S>
void stgr_sgd_block(const Stgr<S> p, const StgrSgd& k, int64_t begin, int64_t end) {
  const S* grad = static_cast<const S*>(k.grad);
  S *weight = static_cast<S*>(k.weight), *average = static_cast<S*>(k.average);
  S *previous = static_cast<S*>(k.previous), *momentum = static_cast<S*>(k.momentum_buffer);
  const bool first = k.first, nesterov = k.nesterov;
  prefetch_all(begin, grad, weight, average, previous, momentum);
  FASTSNN_SIMD
  for (int64_t i = begin; i < end; i++) {
    const Weight<S> now{weight[i], average[i], previous[i], momentum[i]};
    const Weight<S> next = stgr_sgd(p, now, grad[i], first, nesterov);
    weight[i] = next.w;
    average[i] = next.average;
    previous[i] = next.previous;
    momentum[i] = next.momentum;
  }
}

template <class S>
void stgr_sgd_of(const StgrSgd& k, int threads) {
  const Stgr<S> p{S(k.lam), S(k.gam), S(k.rho), S(1.0 - k.rho), S(k.lr), S(k.momentum), S(k.undamped), S(k.decay)};
  parallel_chunks(k.n, kChunk, k.n, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kBlock) stgr_sgd_block(p, k, i, std::min(end, i + kBlock));
  });
}

void stgr_sgd(const StgrSgd& k, int threads) {
  k.dtype == Dtype::f64 ? stgr_sgd_of<double>(k, threads) : stgr_sgd_of<float>(k, threads);
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
