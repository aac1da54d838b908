// Planted bugs, one a class, and their clean twins: `controls NAME planted|clean`. Every kernel writes i + 1 to out[i].
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

__device__ int number() { return int(blockIdx.x * blockDim.x + threadIdx.x); }

template <bool planted>
__global__ void global_overrun(float* out, int n) {
  const int i = number();
  if (planted ? i <= n : i < n) out[i] = float(i + 1);
}

template <bool planted>
__global__ void shared_overrun(float* out, int n) {
  FASTSNN_SHARED(float, shared, 64);
  const unsigned i = threadIdx.x;
  float* through_pointer = shared;
  through_pointer[planted ? i + 1 : i] = float(number() + 1);
  __syncthreads();
  if (number() < n) out[number()] = float(blockIdx.x * blockDim.x + 1) + shared[i] - shared[0];
}

template <bool planted>
__global__ void missing_barrier(float* out, int n) {
  FASTSNN_SHARED(int, shared, 64);
  shared[threadIdx.x] = int(threadIdx.x);
  if (!planted) __syncthreads();
  const int other = 63 - int(threadIdx.x);
  if (number() < n) out[number()] = float(number() + 1 + shared[other] - other);
}

template <bool planted>
__global__ void divergent_barrier(float* out, int n) {
  if (number() < n) out[number()] = float(number() + 1);
  if (!planted || threadIdx.x < 16) __syncthreads();
}

template <bool planted>
__global__ void different_barriers(float* out, int n) {
  if (planted && threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  if (number() < n) out[number()] = float(number() + 1);
}

template <bool planted>
__global__ void race_in_block(float* out, int n) {
  FASTSNN_SHARED(int, arrived, 1);
  if (threadIdx.x == 0) arrived[0] = 0;
  __syncthreads();
  if (planted) {
    arrived[0] += 1;
  } else {
    atomicAdd(&arrived[0], 1);
  }
  __syncthreads();
  if (number() < n) out[number()] = float(number() + 1 + arrived[0] - int(blockDim.x));
}

template <bool planted>
__global__ void race_between_blocks(float* out, int n) {
  if (number() < n && number() > 0) out[number()] = float(number() + 1);
  if (threadIdx.x != 0) return;
  const float share = 1.0f / float(gridDim.x);
  if (planted) {
    out[0] += share;
  } else {
    atomicAdd(&out[0], share);
  }
}

template <bool planted>
__global__ void misaligned(float* out, int n) {
  const int i = 4 * number();
  const float4 four = make_float4(float(i + 1), float(i + 2), float(i + 3), float(i + 4));
  const float4 shifted = make_float4(four.y, four.z, four.w, float(i + 5));
  if (i + 4 > n) return;
  if (planted && i + 5 <= n) *reinterpret_cast<float4*>(out + i + 1) = shifted;
  *reinterpret_cast<float4*>(out + i) = four;
}

template <bool planted>
__global__ void offset_overflow(float* out, int n) {
  const int row = 70000;
  const int64_t offset = planted ? row * (row + number()) : int64_t(row) * (row + number());
  if (number() < n) out[number()] = float(number() + (offset > 0));
}

template <bool planted>
__global__ void wrong_tail(float* out, int n) {
  const int i = 4 * number();
  if (planted && i + 4 > n) return;
  for (int j = i; j < n && j < i + 4; j++) out[j] = float(j + 1);
}

template <bool planted>
__global__ void uninitialised_shared(float* out, int n) {
  FASTSNN_SHARED(float, shared, 64);
  if (!planted || threadIdx.x < 63) shared[threadIdx.x] = 1.0f;
  __syncthreads();
  if (number() < n) out[number()] = float(number()) + shared[threadIdx.x];
}

template <bool planted>
__global__ void absent_lane(float* out, int n) {
  int i = number();
  if (!planted || threadIdx.x % 32 < 16) i = __shfl_xor_sync(0xffffffffu, i ^ 1, 1);
  if (number() < n) out[number()] = float(i + 1);
}

template <bool planted>
__global__ void wrong_mask(float* out, int n) {
  const unsigned half = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  const int i = __shfl_xor_sync(planted ? ~half : half, number() ^ 1, 1);
  if (number() < n) out[number()] = float(i + 1);
}

template <bool planted>
__global__ void deadlock(float* out, int n) {
  if (planted && threadIdx.x % 32 < 16) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  if (number() < n) out[number()] = float(number() + 1);
}

using Kernel = void (*)(float*, int);
struct Control {
  const char* name;
  Kernel planted, clean;
};

#define CONTROL(name) \
  Control { #name, name<true>, name<false> }
const Control controls[] = {
    CONTROL(global_overrun),     CONTROL(shared_overrun), CONTROL(missing_barrier),      CONTROL(divergent_barrier),
    CONTROL(different_barriers), CONTROL(race_in_block),  CONTROL(race_between_blocks),  CONTROL(misaligned),
    CONTROL(offset_overflow),    CONTROL(wrong_tail),     CONTROL(uninitialised_shared), CONTROL(absent_lane),
    CONTROL(wrong_mask),         CONTROL(deadlock),
};

Kernel find(const std::string& name, bool planted) {
  for (const Control& c : controls) {
    if (name == c.name) return planted ? c.planted : c.clean;
  }
  return nullptr;
}

int run(Kernel kernel, bool whole_vectors, bool sums) {
  const int n = whole_vectors ? 100 : 99;
  std::vector<float> out(n);
  cudaLaunchConfig_t config{};
  // what a launch before wrote with other threads is no race
  config.gridDim = dim3(1);
  config.blockDim = dim3(128);
  if (cudaLaunchKernelEx(&config, global_overrun<false>, out.data(), n) != cudaSuccess) return 2;
  std::memset(out.data(), 0xff, n * sizeof(float));
  if (sums) out[0] = 0.0f;
  config.gridDim = dim3(2);
  config.blockDim = dim3(64);
  if (cudaLaunchKernelEx(&config, kernel, out.data(), n) != cudaSuccess) return 2;
  for (int i = 0; i < n; i++) {
    if (out[i] == float(i + 1)) continue;
    std::fprintf(stderr, "%s: out[%d] = %g\n", out[i] == out[i] ? "wrong" : "unwritten or uninitialised", i, out[i]);
    return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string name = argv[1];
  const Kernel kernel = find(name, std::string(argv[2]) == "planted");
  return kernel ? run(kernel, name == "misaligned", name == "race_between_blocks") : 2;
}
