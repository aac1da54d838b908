#pragma once

#include <cmath>

#include "platform.h"

// Weight standardisation (equations/ottt.md): W_hat = gain * (W - mean) / sqrt(var * N + eps), var unbiased.
namespace fastsnn {
namespace FASTSNN_ISA {

FASTSNN_HD double standardize_inverse(double sum_of_squares, double cols, double eps) {
  return 1.0 / std::sqrt(sum_of_squares / (cols - 1.0) * cols + eps);
}

// g_W = inv * gain * (g - mean(g)) - xc * inv^3 * N/(N-1) * gain * sum(g * xc), xc = W - mean
FASTSNN_HD double standardize_grad(double g, double mean_g, double xc, double inv, double gain, double pull) {
  return inv * gain * (g - mean_g) - xc * pull;
}

FASTSNN_HD double standardize_pull(double sum_g_xc, double inv, double gain, double cols) {
  return inv * inv * inv * (cols / (cols - 1.0)) * gain * sum_g_xc;
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
