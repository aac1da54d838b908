#pragma once

#include "platform.h"

// Surrogate derivatives sg(z), z = u - th (equations/lif.md). Every shape has a height h and a slope k.
namespace fastsnn {
namespace FASTSNN_ISA {

enum class Surrogate : int {
  sigmoid,        // h e / (1 + e)^2, e = exp(-|k z|)
  triangle,       // h max(0, 1 - |k z|)
  rectangle,      // h where |z| <= k
  rect_open,      // h where |z| < k
  atan,           // h / (1 + (k z)^2)
  piecewise_exp,  // h exp(-|k z|)
  soft_sign,      // h / (1 + |k z|)^2
  erf,            // h exp(-(k z)^2)
  count
};

FASTSNN_HD float absolute(float z) { return bit_cast<float>(bit_cast<uint32_t>(z) & 0x7fffffffu); }
FASTSNN_HD double absolute(double z) { return bit_cast<double>(bit_cast<uint64_t>(z) & 0x7fffffffffffffffu); }

// a*b + c, fused where the instruction set has it: only inside exp, whose tolerance covers the difference.
template <class S>
FASTSNN_HD S mul_add(S a, S b, S c) {
#if defined(__FMA__) && !defined(__CUDACC__)
  return sizeof(S) == sizeof(float) ? S(__builtin_fmaf(float(a), float(b), float(c))) : S(__builtin_fma(a, b, c));
#else
  return a * b + c;
#endif
}

// exp(x) for x <= 0 by range reduction, |r| <= ln2/2; 0 on underflow. Relative error 1e-7 (float, minimax
// polynomial) and 3e-16 (double, Taylor).
FASTSNN_HD float exp_nonpositive(float x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: its low mantissa bits hold the rounded integer
  const float shifted = mul_add(x, 1.44269504f, magic);
  const float n = shifted - magic;
  const float r = mul_add(n, 2.12194440e-4f, mul_add(n, -0.693359375f, x));
  float p = 0.001381459878757596f;
  p = mul_add(p, r, 0.008368716575205326f);
  p = mul_add(p, r, 0.04166838899254799f);
  p = mul_add(p, r, 0.1666652113199234f);
  p = mul_add(p, r, 0.4999999403953552f);
  p = mul_add(p, r, 1.0f);
  p = mul_add(p, r, 1.0f);
  const float scale = bit_cast<float>((bit_cast<uint32_t>(shifted) + 127u) << 23);
  return x < -87.0f ? 0.0f : p * scale;
}

FASTSNN_HD double exp_nonpositive(double x) {
  const double magic = 6755399441055744.0;  // 1.5 * 2^52
  const double shifted = mul_add(x, 1.4426950408889634, magic);
  const double n = shifted - magic;
  const double r = mul_add(n, -1.42860682030941723212e-6, mul_add(n, -6.93145751953125e-1, x));
  double p = 1.0 / 6227020800.0;
  p = mul_add(p, r, 1.0 / 479001600.0);
  p = mul_add(p, r, 1.0 / 39916800.0);
  p = mul_add(p, r, 1.0 / 3628800.0);
  p = mul_add(p, r, 1.0 / 362880.0);
  p = mul_add(p, r, 1.0 / 40320.0);
  p = mul_add(p, r, 1.0 / 5040.0);
  p = mul_add(p, r, 1.0 / 720.0);
  p = mul_add(p, r, 1.0 / 120.0);
  p = mul_add(p, r, 1.0 / 24.0);
  p = mul_add(p, r, 1.0 / 6.0);
  p = mul_add(p, r, 0.5);
  p = mul_add(p, r, 1.0);
  p = mul_add(p, r, 1.0);
  const double scale = bit_cast<double>((bit_cast<uint64_t>(shifted) + 1023u) << 52);
  return x < -708.0 ? 0.0 : p * scale;
}

template <Surrogate shape, class S>
FASTSNN_HD S surrogate(S z, S h, S k) {
  const S kz = absolute(k * z);
  if constexpr (shape == Surrogate::sigmoid) {
    const S e = exp_nonpositive(-kz);
    return h * e / ((S(1) + e) * (S(1) + e));
  } else if constexpr (shape == Surrogate::triangle) {
    const S y = S(1) - kz;
    return h * (y < S(0) ? S(0) : y);
  } else if constexpr (shape == Surrogate::rectangle) {
    return absolute(z) <= k ? h : S(0);
  } else if constexpr (shape == Surrogate::rect_open) {
    return absolute(z) < k ? h : S(0);
  } else if constexpr (shape == Surrogate::atan) {
    return h * (S(1) / (S(1) + kz * kz));
  } else if constexpr (shape == Surrogate::piecewise_exp) {
    return h * exp_nonpositive(-kz);
  } else if constexpr (shape == Surrogate::soft_sign) {
    return h * (S(1) / ((S(1) + kz) * (S(1) + kz)));
  } else {
    return h * exp_nonpositive(-(kz * kz));
  }
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
