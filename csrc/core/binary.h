#pragma once

#include "arguments.h"
#include "platform.h"

// Binary synapse (equations/empf.md): W_b = scale_o * sign(W), its straight-through gradient, and packed signs.
namespace fastsnn {

struct Binarize {
  int64_t rows, cols;
  Dtype dtype;
  const void* weight;  // [rows, cols]

  bool empty() const { return rows == 0 || cols == 0; }
  template <class Take>
  void numbers(Take&& take) {
    take("rows", rows), take("cols", cols), take("dtype", dtype);
  }
};

struct BinarizeForward : Binarize {
  bool scaled;
  void* scale;  // [rows], double: mean |W|
  void* out;    // [rows, cols]

  template <class Take>
  void numbers(Take&& take) {
    Binarize::numbers(take);
    take("scaled", scaled);
  }
  template <class Take>
  void operands(Take&& take) {
    take("weight", weight, Holds::input, elements({rows, cols}));
    take("scale", scale, Holds::float64, rows);
    take("out", out, Holds::input, elements({rows, cols}));
  }
};

struct BinarizeBackward : Binarize {
  const void* g_out;  // [rows, cols]
  void* g_weight;     // [rows, cols]

  template <class Take>
  void operands(Take&& take) {
    const int64_t all = elements({rows, cols});
    take("weight", weight, Holds::input, all);
    take("g_out", g_out, Holds::input, all);
    take("g_weight", g_weight, Holds::input, all);
  }
};

// Signs lie in words of 8 nibbles, a nibble holds 4 weights of 1 bit or 2 of 2 bits that are neighbours in the fan-in
// of one output: words [blocks, taps, words, 16], block = output / 16, tap = place in the kernel.
constexpr int64_t kOutputs = 16;
constexpr int64_t kNibbles = 8;

struct Plane {
  int64_t height, width;

  // Sides below 2^31, so that no position that follows from them overflows
  template <class Take>
  void take_from(Take&& take, const char* name, int64_t least) {
    int64_t sides[2]{};
    take(name, sides);
    for (const int64_t side : sides) {
      take.require(side >= least && side <= std::numeric_limits<int32_t>::max(),
                   "a plane, kernel, stride, padding or dilation is too small, or 2^31 or more");
    }
    *this = {sides[0], sides[1]};
  }
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

  bool empty() const { return batch == 0 || outputs == 0 || out.height == 0 || out.width == 0; }

  int64_t words_size() const {
    const int64_t bits_of_tap = elements({channels, bits}), blocks = outputs / kOutputs + (outputs % kOutputs != 0);
    return elements({blocks, kernel.height, kernel.width, bits_of_tap / 32 + (bits_of_tap % 32 != 0), kOutputs});
  }

  // Elements from the first to the last of [batch, channels, *plane] in these strides
  static int64_t span(const int64_t (&sizes)[4], const int64_t (&strides)[4]) {
    const int64_t all = elements({sizes[0], sizes[1], sizes[2], sizes[3]});
    if (all == 0 || all == kNever) return all;
    int64_t last = 0;
    for (int i = 0; i < 4; i++) {
      const int64_t step = sizes[i] == 1 ? 0 : elements({sizes[i] - 1, strides[i]});
      if (step > kNever - 2 - last) return kNever;
      last += step;
    }
    return last + 1;
  }

  template <class Take>
  void numbers(Take&& take) {
    take("batch", batch), take("channels", channels), take("outputs", outputs);
    in.take_from(take, "in_plane", 0);
    out.take_from(take, "out_plane", 0);
    kernel.take_from(take, "kernel", 1);
    stride.take_from(take, "stride", 1);
    padding.take_from(take, "padding", 0);
    dilation.take_from(take, "dilation", 1);
    take("x_strides", x_strides), take("y_strides", y_strides), take("bits", bits), take("dtype", dtype);
    take.require(channels >= 1 && (bits == 1 || bits == 2), "channels must be positive and bits 1 or 2");
    take.require(dtype != Dtype::f64, "dtype: packed weights multiply float32, bfloat16 and float16");
  }
  template <class Take>
  void operands(Take&& take) {
    take.strided("x", x, Holds::input, span({batch, channels, in.height, in.width}, x_strides));
    take("words", words, Holds::int32, words_size());
    take("scale", scale, Holds::float32, outputs, Need::optional);
    take("bias", bias, Holds::float32, outputs, Need::optional);
    take.strided("y", y, Holds::input, span({batch, outputs, out.height, out.width}, y_strides));
  }
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

// A code's sign bit, and 0 where its weight is 0: 0 is +1 and 1 is -1 (1 bit), or two's complement (2 bits).
constexpr FASTSNN_HD uint32_t negative(int bits, uint32_t code) { return code >> (bits - 1) & 1; }
constexpr FASTSNN_HD uint32_t nonzero(int bits, uint32_t code) { return bits == 1 ? 1 : code & 1; }

// The weight j of a nibble
constexpr FASTSNN_HD float weight_of(int bits, int nibble, int j) {
  const uint32_t code = uint32_t(nibble) >> (j * bits);
  return float(nonzero(bits, code)) - 2.0f * float(negative(bits, code));
}

// The same in the bits of a type whose 1 is `one` and whose sign is bit `sign`
constexpr FASTSNN_HD uint32_t weight_bits(int bits, uint32_t code, uint32_t one, int sign) {
  return (one & (0u - nonzero(bits, code))) | negative(bits, code) << sign;
}

// x times the weight of a code, exactly
template <int bits>
FASTSNN_HD float times(float x, uint32_t code) {
  if (bits == 1) return bit_cast<float>(bit_cast<uint32_t>(x) ^ negative(bits, code) << 31);
  return x * bit_cast<float>(weight_bits(bits, code, 0x3f800000u, 31));
}

struct Position {
  int64_t sample, row, column;
};

FASTSNN_HD Position position(int64_t index, Plane plane) {
  const int64_t line = index / plane.width;
  return {line / plane.height, line % plane.height, index % plane.width};
}

FASTSNN_HD int64_t offset(Position at, const int64_t (&strides)[4]) {
  return at.sample * strides[0] + at.row * strides[2] + at.column * strides[3];
}

// The pixel of x under tap (i, j) of an output position's window; it may lie outside
FASTSNN_HD Position under_tap(const PackedProduct& k, Position out, int64_t i, int64_t j) {
  return {out.sample, out.row * k.stride.height - k.padding.height + i * k.dilation.height,
          out.column * k.stride.width - k.padding.width + j * k.dilation.width};
}

FASTSNN_HD bool inside(Position at, Plane plane) {
  return at.row >= 0 && at.row < plane.height && at.column >= 0 && at.column < plane.width;
}

// y from the sum of signed spikes of output o
FASTSNN_HD float finished(const PackedProduct& k, float sum, int64_t o) {
  const float scaled = k.scale ? sum * k.scale[o] : sum;
  return k.bias ? scaled + k.bias[o] : scaled;
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
