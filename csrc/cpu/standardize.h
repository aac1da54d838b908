#pragma once

#include "../core/standardize.h"
#include "loops.h"

// One output channel a row; sums in double, in lanes of fixed order so that they repeat bitwise.
namespace fastsnn {
namespace FASTSNN_ISA {

constexpr int kLanes = 8;

template <class Term>
double ordered_sum(int64_t n, const Term& term) {
  double lanes[kLanes] = {};
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    for (int l = 0; l < kLanes; l++) lanes[l] += term(j + l);
  }
  for (int l = 0; j < n; j++, l++) lanes[l] += term(j);
  double total = 0.0;
  for (int l = 0; l < kLanes; l++) total += lanes[l];
  return total;
}

template <class F>
void parallel_rows(const Standardize& k, int threads, const F& row) {
  parallel_chunks(k.rows, 1, k.rows * k.cols, threads, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) row(r);
  });
}

template <class T>
void standardize_forward_row(const StandardizeForward& k, int64_t r) {
  using S = typename StateOf<T>::type;
  const T* w = static_cast<const T*>(k.weight) + r * k.cols;
  T* out = static_cast<T*>(k.out) + r * k.cols;
  const double mean = ordered_sum(k.cols, [&](int64_t j) { return double(widen(w[j])); }) / double(k.cols);
  const double squares = ordered_sum(k.cols, [&](int64_t j) {
    const double xc = double(widen(w[j])) - mean;
    return xc * xc;
  });
  const double inv = standardize_inverse(squares, double(k.cols), k.eps);
  const double scale = double(widen(static_cast<const T*>(k.gain)[r])) * inv;
  FASTSNN_SIMD
  for (int64_t j = 0; j < k.cols; j++) narrow(S((double(widen(w[j])) - mean) * scale), out[j]);
  static_cast<double*>(k.mean)[r] = mean;
  static_cast<double*>(k.inverse)[r] = inv;
}

template <class T>
void standardize_backward_row(const StandardizeBackward& k, int64_t r) {
  using S = typename StateOf<T>::type;
  const T* w = static_cast<const T*>(k.weight) + r * k.cols;
  const T* g = static_cast<const T*>(k.g_out) + r * k.cols;
  T* g_w = static_cast<T*>(k.g_weight) + r * k.cols;
  const double mean = static_cast<const double*>(k.mean)[r];
  const double inv = static_cast<const double*>(k.inverse)[r];
  const double gain = widen(static_cast<const T*>(k.gain)[r]);
  const double mean_g = ordered_sum(k.cols, [&](int64_t j) { return double(widen(g[j])); }) / double(k.cols);
  const double g_xc =
      ordered_sum(k.cols, [&](int64_t j) { return double(widen(g[j])) * (double(widen(w[j])) - mean); });
  const double pull = standardize_pull(g_xc, inv, gain, double(k.cols));
  FASTSNN_SIMD
  for (int64_t j = 0; j < k.cols; j++) {
    const double xc = double(widen(w[j])) - mean;
    narrow(S(standardize_grad(double(widen(g[j])), mean_g, xc, inv, gain, pull)), g_w[j]);
  }
  narrow(S(g_xc * inv), static_cast<T*>(k.g_gain)[r]);
}

void standardize_forward(const StandardizeForward& k, int threads) {
  with_dtype(k.dtype, [&](auto zero) {
    parallel_rows(k, threads, [&](int64_t r) { standardize_forward_row<decltype(zero)>(k, r); });
  });
}

void standardize_backward(const StandardizeBackward& k, int threads) {
  with_dtype(k.dtype, [&](auto zero) {
    parallel_rows(k, threads, [&](int64_t r) { standardize_backward_row<decltype(zero)>(k, r); });
  });
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
