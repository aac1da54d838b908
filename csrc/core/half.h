#pragma once

#include "platform.h"

// float16 and bfloat16 as storage types: arithmetic is always done in float.
namespace fastsnn {
namespace FASTSNN_ISA {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

FASTSNN_HD float to_float(BFloat16 b) { return bit_cast<float>(uint32_t(b.bits) << 16); }

FASTSNN_HD float to_float(Half h) {
  const uint32_t magnitude = uint32_t(h.bits & 0x7fffu) << 13;
  const uint32_t exponent = magnitude & 0x0f800000u;
  const uint32_t rebased = magnitude + (112u << 23);
  const float subnormal = bit_cast<float>(rebased + (1u << 23)) - bit_cast<float>(113u << 23);
  const uint32_t infinite = rebased + (112u << 23);
  const uint32_t normal = exponent == 0x0f800000u ? infinite : rebased;
  const uint32_t out = exponent == 0 ? bit_cast<uint32_t>(subnormal) : normal;
  return bit_cast<float>(out | uint32_t(h.bits & 0x8000u) << 16);
}

// Round to nearest even.
FASTSNN_HD BFloat16 to_bfloat16(float f) {
  const uint32_t u = bit_cast<uint32_t>(f);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return BFloat16{uint16_t((u & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded)};
}

FASTSNN_HD Half to_half(float f) {
  const uint32_t sign = bit_cast<uint32_t>(f) & 0x80000000u;
  const uint32_t u = bit_cast<uint32_t>(f) ^ sign;
  const uint32_t special = u > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const float shifted = bit_cast<float>(u) + bit_cast<float>(126u << 23);
  const uint32_t subnormal = bit_cast<uint32_t>(shifted) - (126u << 23);
  const uint32_t normal = (u - (112u << 23) + 0xfffu + ((u >> 13) & 1u)) >> 13;
  const uint32_t finite = u < (113u << 23) ? subnormal : normal;
  return Half{uint16_t((u >= (143u << 23) ? special : finite) | sign >> 16)};
}

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
