#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "fibres.h"

// Stands in for tensor cores: mma.sync.aligned.m16n8k16.row.col.f32.{f16, bf16}.{f16, bf16}.f32 on a warp of fibres,
// with PTX's places of the elements in the lanes. Sums run in float from the first place to the last; hardware's
// order and rounding inside an instruction are its own.
namespace gpuless {

// A pair's first and second element
inline float element(const char* type, uint32_t pair, int i) {
  const uint16_t bits = uint16_t(pair >> 16 * i);
  return type[0] == 'b' ? __bfloat162float(__nv_bfloat16_raw{bits}) : __half2float(__half_raw{bits});
}

// What a lane brings: pairs at places 2p, 2p + 1 and 2p + 8, 2p + 9 of two rows of a and of one column of b
struct Held {
  uint32_t rows[2][2], column[2];
};

// The 16 elements that 4 lanes hold together; pairs(lane) are a lane's two
template <class Pairs>
void put_together(const char* type, const Held* lanes, const Pairs& pairs, float (&line)[16]) {
  for (int p = 0; p < 4; p++) {
    for (int i = 0; i < 4; i++) line[2 * p + i % 2 + i / 2 * 8] = element(type, pairs(lanes[p])[i / 2], i % 2);
  }
}

inline void multiply_add(const char* type, float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  static char key;
  const unsigned thread = thread_number(*scheduler.current), group = lane() / 4, pair = lane() % 4;
  Held* all = static_cast<Held*>(shared_array(&key, sizeof(Held) * scheduler.threads));
  all[thread] = Held{{{a[0], a[2]}, {a[1], a[3]}}, {b[0], b[1]}};
  warp_sync(0xffffffffu);
  const Held* warp = all + (thread - lane());
  float rows[2][16], columns[2][16];
  for (int i = 0; i < 2; i++) {
    put_together(type, warp + group * 4, [&](const Held& held) { return held.rows[i]; }, rows[i]);
    put_together(type, warp + (pair * 2 + i) * 4, [&](const Held& held) { return held.column; }, columns[i]);
  }
  for (int i = 0; i < 4; i++) {
    for (int k = 0; k < 16; k++) c[i] += rows[i / 2][k] * columns[i % 2][k];
  }
  warp_sync(0xffffffffu);
}

}  // namespace gpuless

#define FASTSNN_MMA(type, c, a, b) gpuless::multiply_add(type, c, a, b)
