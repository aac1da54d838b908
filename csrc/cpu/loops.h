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

// A row of n elements as S: the memory itself when it is S already, else converted into `buffer`.
template <class S, class T>
const S* load(const T* row, S* buffer, int64_t n) {
  if constexpr (sizeof(T) == sizeof(S)) {
    return row;
  } else {
    FASTSNN_SIMD
    for (int64_t i = 0; i < n; i++) buffer[i] = widen(row[i]);
    return buffer;
  }
}

template <class S, class T>
S* store_target(T* row, S* buffer) {
  if constexpr (sizeof(T) == sizeof(S)) {
    return row;
  } else {
    return buffer;
  }
}

template <class S, class T>
void store(T* row, const S* buffer, int64_t n) {
  if constexpr (sizeof(T) != sizeof(S)) {
    FASTSNN_SIMD
    for (int64_t i = 0; i < n; i++) narrow(buffer[i], row[i]);
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

// Split [0, n) into one contiguous range a thread, each a multiple of `chunk`. What a thread throws is thrown here.
template <class Body>
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

template <class F>
void with_dtype(Dtype dtype, const F& f) {
  with_type<Half, BFloat16>(dtype, f);
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
