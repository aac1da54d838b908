#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "../core/dtype.h"
#include "../core/half.h"
#include "kernels.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define FASTSNN_SIMD
#elif defined(__clang__)
#define FASTSNN_SIMD _Pragma("clang loop vectorize(enable) interleave(enable)")
#else
#define FASTSNN_SIMD _Pragma("GCC ivdep")
#endif

// What every CPU loop shares: chunks that fit L1, threads, loads and stores through half types.
namespace fastsnn {
namespace FASTSNN_ISA {

constexpr int64_t kChunk = 2048;
constexpr int64_t kBlock = 256;    // elements between two rounds of prefetches
constexpr int64_t kGrain = 16384;  // elements below which a second thread costs more than it saves

inline float widen(float f) { return f; }
inline double widen(double f) { return f; }
inline float widen(Half h) { return to_float(h); }
inline float widen(BFloat16 b) { return to_float(b); }
inline void narrow(float f, float& out) { out = f; }
inline void narrow(double f, double& out) { out = f; }
inline void narrow(float f, Half& out) { out = to_half(f); }
inline void narrow(float f, BFloat16& out) { out = to_bfloat16(f); }

// Rows of up to a chunk of n elements, on the heap: a thread's stack may be small. Aligned for the widest vectors.
template <class S>
class Scratch {
 public:
  Scratch(int64_t rows, int64_t n)
      : length_(std::min(n, kChunk)),
        stride_((length_ * int64_t(sizeof(S)) + 63) / 64 * 64 / int64_t(sizeof(S))),
        memory_(new char[size_t(rows * stride_) * sizeof(S) + 64]) {
    rewind();
  }

  S* row() { return std::exchange(next_, next_ + stride_); }
  S* row_of(S value) {
    S* filled = row();
    std::fill_n(filled, length_, value);
    return filled;
  }
  // The rows handed out may be again.
  void rewind() {
    next_ = reinterpret_cast<S*>(memory_.get() + (64 - reinterpret_cast<uintptr_t>(memory_.get()) % 64));
  }

 private:
  int64_t length_, stride_;
  std::unique_ptr<char[]> memory_;
  S* next_ = nullptr;
};

template <class F>
void with_dtype(Dtype dtype, const F& f) {
  with_type<Half, BFloat16>(dtype, f);
}

// Calls f with a value of the type of the state. What reads and writes the call's dtype row by row is compiled for
// these two alone.
template <class F>
void with_state(Dtype dtype, const F& f) {
  dtype == Dtype::f64 ? f(double{}) : f(float{});
}

inline bool is_narrow(Dtype dtype) { return dtype == Dtype::bf16 || dtype == Dtype::f16; }

template <class F>
void with_narrow(Dtype dtype, const F& f) {
  dtype == Dtype::bf16 ? f(BFloat16{}) : f(Half{});
}

void widen_row(const void* input, Dtype dtype, int64_t at, float* buffer, int64_t n) {
  with_narrow(dtype, [=](auto zero) {
    const auto* row = static_cast<const decltype(zero)*>(input) + at;
    FASTSNN_SIMD
    for (int64_t i = 0; i < n; i++) buffer[i] = widen(row[i]);
  });
}

void narrow_row(const float* buffer, void* output, Dtype dtype, int64_t at, int64_t n) {
  with_narrow(dtype, [=](auto zero) {
    auto* row = static_cast<decltype(zero)*>(output) + at;
    FASTSNN_SIMD
    for (int64_t i = 0; i < n; i++) narrow(buffer[i], row[i]);
  });
}

// n elements from `at` on as S: the memory itself where it holds S, else converted into `buffer`.
template <class S>
const S* load(const void* input, Dtype dtype, int64_t at, S* buffer, int64_t n) {
  if (!is_narrow(dtype)) return static_cast<const S*>(input) + at;
  if constexpr (sizeof(S) == sizeof(float)) widen_row(input, dtype, at, buffer, n);
  return buffer;
}

// Where to put what is then stored: the memory itself, or `buffer`.
template <class S>
S* store_target(void* output, Dtype dtype, int64_t at, S* buffer) {
  return is_narrow(dtype) ? buffer : static_cast<S*>(output) + at;
}

template <class S>
void store(void* output, Dtype dtype, int64_t at, const S* buffer, int64_t n) {
  if constexpr (sizeof(S) == sizeof(float)) {
    if (is_narrow(dtype)) narrow_row(buffer, output, dtype, at, n);
  }
}

// Ask for what a stream holds one page ahead: the hardware's prefetchers stop at page ends.
template <class S>
inline void prefetch(const S* stream) {
#if defined(__GNUC__)
  const char* ahead = reinterpret_cast<const char*>(stream) + 4096;
  for (int64_t line = 0; line < kBlock * int64_t(sizeof(S)); line += 64) __builtin_prefetch(ahead + line);
#endif
}

template <class... Streams>
void prefetch_all(int64_t at, const Streams*... streams) {
  (prefetch(streams + at), ...);
}

// Pointer to chunk `offset` of an optional array; a null array reads from / writes to `standin`.
template <class P>
P* at_or(P* base, int64_t offset, P* standin) {
  return base ? base + offset : standin;
}

// What a kernel does to a range: a function object that outlives this, seen by its address.
class Body {
 public:
  template <class F>
  Body(const F& f)
      : f_(&f), call_([](const void* f, int64_t begin, int64_t end) { (*static_cast<const F*>(f))(begin, end); }) {}
  void operator()(int64_t begin, int64_t end) const { call_(f_, begin, end); }

 private:
  const void* f_;
  void (*call_)(const void*, int64_t, int64_t);
};

// Split [0, n) into one contiguous range a thread, each a multiple of `chunk`. What a thread throws is thrown here.
void parallel_chunks(int64_t n, int64_t chunk, int64_t work, int threads, const Body& body) {
  const int64_t chunks = (n + chunk - 1) / chunk;
  const int64_t wanted = std::min<int64_t>({threads, chunks, 1 + work / kGrain});
#if defined(_OPENMP)
  if (wanted > 1) {
    std::exception_ptr thrown;
#pragma omp parallel num_threads(int(wanted))
    {
      const int64_t team = omp_get_num_threads(), rank = omp_get_thread_num();
      try {
        body(std::min(n, chunks * rank / team * chunk), std::min(n, chunks * (rank + 1) / team * chunk));
      } catch (...) {
#pragma omp critical(fastsnn_thrown)
        thrown = std::current_exception();
      }
    }
    if (thrown) std::rethrow_exception(thrown);
    return;
  }
#endif
  body(0, n);
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
