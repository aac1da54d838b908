// Small kernels that the tests run: vectors, shared memory, shuffles, half and bfloat16, division, wide offsets.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#ifndef FASTSNN_SHARED
#define FASTSNN_SHARED(type, name, count) __shared__ type name[count]
#endif

struct Axpy {
  const float* x;
  double scale;
  float* y;
  int64_t n;
  bool negate;
};

extern "C" {

__global__ void add_vectors(const float4* a, const float4* b, float4* out, int64_t vectors) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= vectors) return;
  const float4 x = a[i], y = b[i];
  out[i] = make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
}

__global__ void copy_strided(const float* in, float* out, int n, int stride) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = in[int64_t(i) * stride];
}

__global__ void sum_blocks(const float* in, float* out, int n) {
  FASTSNN_SHARED(float, partial, 8);
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  float sum = i < n ? in[i] : 0.0f;
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x >= 8) return;
  sum = partial[threadIdx.x];
  for (int lanes = 4; lanes > 0; lanes /= 2) sum += __shfl_down_sync(0x000000ffu, sum, lanes, 8);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

__global__ void round_half(const float* in, float* out, __half* half, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  half[i] = __float2half_rn(in[i]);
  out[i] = __half2float(half[i]) * 3.0f;
}

__global__ void round_bfloat16(const float* in, float* out, __nv_bfloat16* bfloat, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  bfloat[i] = __float2bfloat16_rn(in[i]);
  out[i] = __bfloat162float(bfloat[i]) * 3.0f;
}

__global__ void divide(const float* a, const float* b, float* quotient, float* root, double* wide, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  quotient[i] = a[i] / b[i];
  root[i] = sqrtf(a[i]);
  wide[i] = double(a[i]) / double(b[i]);
}

__global__ void offsets(int64_t* out, int rows, int64_t columns) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < rows) out[i] = int64_t(i) * columns % 1000003 + (int64_t(i) * columns / 7);
}

__global__ void axpy(const Axpy k) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < k.n) k.y[i] += float(k.negate ? -k.scale : k.scale) * k.x[i];
}

// Each row of out holds what one warp operation gives to every thread.
__global__ void warp_operations(const int* in, int* out) {
  FASTSNN_SHARED(int, shared, 64);
  const unsigned full = 0xffffffffu, thread = threadIdx.y * blockDim.x + threadIdx.x;
  const unsigned at = blockIdx.y * 64 + thread, n = gridDim.y * 64;
  const int v = in[at];
  out[at] = __shfl_xor_sync(full, v, 5);
  out[n + at] = __shfl_down_sync(full, v, 3);
  out[2 * n + at] = __shfl_up_sync(full, v, 3);
  out[3 * n + at] = __shfl_sync(full, v, 3, 8);
  out[4 * n + at] = __shfl_down_sync(full, v, 3, 8);
  out[5 * n + at] = int(__shfl_xor_sync(full, 0.5 * v, 1) * 2.0);
  out[6 * n + at] = int(__ballot_sync(full, v > 0));
  out[7 * n + at] = __any_sync(full, v > 90);
  out[8 * n + at] = __all_sync(full, v > -90);
  shared[thread] = v;
  __syncwarp();
  out[9 * n + at] = shared[thread ^ 31];
  __syncthreads();
  out[10 * n + at] = shared[63 - thread];
}

// The same kernel through CUDA's launch, for a library that runs it on fibres
__attribute__((visibility("default"))) int launch_warp_operations(const int* in, int* out, unsigned width) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1, 3);
  config.blockDim = dim3(width, 4);
  return cudaLaunchKernelEx(&config, warp_operations, in, out);
}

}  // extern "C"
