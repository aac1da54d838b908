#pragma once

#include <cstdio>
#include <cstring>

#include "../../csrc/core/binary.h"

// The packed product over ragged shapes, on arrays of exactly their sizes.
namespace sanitize {

using namespace fastsnn;

struct Shape {
  int64_t batch, channels, outputs;
  Plane in, kernel, stride, padding;
};

// a linear layer, small and ragged, of one word, of many positions; convolutions
constexpr Shape kShapes[] = {
    {1, 1, 1, {1, 1}, {1, 1}, {1, 1}, {0, 0}},     {9, 70, 33, {1, 1}, {1, 1}, {1, 1}, {0, 0}},
    {300, 33, 17, {1, 1}, {1, 1}, {1, 1}, {0, 0}}, {2, 40, 150, {13, 11}, {3, 3}, {1, 1}, {1, 1}},
    {3, 600, 18, {5, 4}, {2, 3}, {2, 1}, {0, 2}},  {1, 2000, 70, {1, 1}, {1, 1}, {1, 1}, {0, 0}},
    {1, 3, 4, {2, 2}, {1, 1}, {1, 1}, {3, 3}}};
constexpr int64_t kPlanted = 3;  // the shape to run with a word too few

inline int64_t out_side(int64_t in, int64_t kernel, int64_t stride, int64_t padding) {
  return (in + 2 * padding - kernel) / stride + 1;
}

// Array<T>(n) has data() and []; T is a type as wide as the spikes; `share` percent of them are not zero
template <template <class> class Array, class T, class Run>
void product(const Shape& s, Dtype dtype, int bits, int64_t share, bool channels_last, int64_t missing_words,
             const Run& run) {
  const Plane out{out_side(s.in.height, s.kernel.height, s.stride.height, s.padding.height),
                  out_side(s.in.width, s.kernel.width, s.stride.width, s.padding.width)};
  const int64_t pixels = s.in.height * s.in.width, positions = out.height * out.width;
  const int64_t blocks = (s.outputs + kOutputs - 1) / kOutputs, words = (s.channels * bits + 31) / 32;
  const int64_t inputs = s.batch * s.channels * pixels;
  const int64_t all_words = blocks * s.kernel.height * s.kernel.width * words * kOutputs - missing_words;
  Array<T> x(inputs), y(s.batch * s.outputs * positions);
  Array<float> scale(s.outputs);
  Array<uint32_t> packed(all_words);
  for (int64_t i = 0; i < inputs; i++) x[i] = i * 7919 % 100 < share ? T(i % 5) : T(0);
  for (int64_t i = 0; i < s.outputs; i++) scale[i] = 0.5f;
  for (int64_t i = 0; i < all_words; i++) packed[i] = 0x93a5c6f1u;
  PackedProduct k{s.batch,
                  s.channels,
                  s.outputs,
                  s.in,
                  out,
                  s.kernel,
                  s.stride,
                  s.padding,
                  Plane{1, 1},
                  {s.channels * pixels, pixels, s.in.width, 1},
                  {s.outputs * positions, positions, out.width, 1},
                  bits,
                  dtype,
                  x.data(),
                  packed.data(),
                  scale.data(),
                  nullptr,
                  y.data()};
  if (channels_last) {
    const int64_t strides[] = {s.channels * pixels, 1, s.in.width * s.channels, s.channels};
    std::memcpy(k.x_strides, strides, sizeof strides);
  }
  run(k);
}

}  // namespace sanitize
