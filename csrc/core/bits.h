#pragma once

#include "arguments.h"
#include "platform.h"

// Binary synapse (SPEC 4): W_b = scale_o * sign(W), its straight-through gradient, and packed signs.
namespace fastsnn {

struct Binarize {
  int64_t rows, cols;
  Dtype dtype;
  const void* weight;  // [rows, cols]
};

struct BinarizeForward : Binarize {
  bool scaled;
  void* scale;  // [rows], double: mean |W|
  void* out;    // [rows, cols]
};

struct BinarizeBackward : Binarize {
  const void* g_out;  // [rows, cols]
  void* g_weight;     // [rows, cols]
};

// Signs lie in words of 8 nibbles, a nibble holds 4 weights of 1 bit or 2 of 2 bits that are neighbours in the fan-in
// of one output: words [blocks, taps, words, 16], block = output / 16, tap = place in the kernel.
constexpr int64_t kOutputs = 16;
constexpr int64_t kNibbles = 8;

struct Plane {
  int64_t height, width;
};

// y[n, o, p] = scale_o * sum of sign(W) * x over the window of p, + bias_o. A linear layer has planes of 1 by 1.
struct PackedProduct {
  int64_t batch, channels, outputs;
  Plane in, out, kernel, stride, padding, dilation;
  int64_t x_strides[4], y_strides[4];  // sample, channel, row, column
  int bits;
  Dtype dtype;
  const void* x;
  const uint32_t* words;
  const float* scale;  // [outputs], optional
  const float* bias;   // [outputs], optional
  void* y;
};

namespace FASTSNN_ISA {

// sign(0) = 0, and NaN stays
template <class S>
FASTSNN_HD S sign(S w) {
  return w > S(0) ? S(1) : (w < S(0) ? S(-1) : w * S(0));
}

// g_W = g_Wb where -1 <= W <= 1, else 0
template <class S>
FASTSNN_HD S straight_through(S g, S w) {
  return (w >= S(-1)) & (w <= S(1)) ? g : S(0);
}

// The weight j of a nibble: 0 is +1 and 1 is -1 (1 bit), or two's complement (2 bits).
constexpr float weight_of(int bits, int nibble, int j) {
  const int code = nibble >> (j * bits) & ((1 << bits) - 1);
  return bits == 1 ? 1.0f - 2.0f * float(code) : float(code & 1) - float(code & 2);
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
