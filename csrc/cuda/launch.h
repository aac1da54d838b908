#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "../core/dtype.h"
#include "kernels.h"

// What every CUDA launch shares: errors, the device, the stream, the grid.
#ifndef FASTSNN_SHARED
#define FASTSNN_SHARED(type, name, count) __shared__ type name[count]
#endif

namespace fastsnn {
namespace cuda {

constexpr int kThreads = 256;
// At least half of the threads that an SM holds: 2,048 at most, 1,536 from compute capability 12 on
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int kBlocksPerSM = 3;
#else
constexpr int kBlocksPerSM = 4;
#endif

inline void check(cudaError_t status, const char* doing) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string("CUDA failed to ") + doing + ": " + cudaGetErrorString(status) + " (" +
                           cudaGetErrorName(status) + "); see `python -m fastsnn info`");
}

// Makes `device` current, and the previous one again at the end.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&previous_), "read the current device");
    check(cudaSetDevice(device), "select the tensor's device");
  }
  ~DeviceGuard() { cudaSetDevice(previous_); }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
};

inline unsigned grid(int64_t blocks) {
  if (blocks > std::numeric_limits<int>::max()) throw std::runtime_error("tensor is too large for one CUDA grid");
  return unsigned(blocks);
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, const Stream& on, Arguments&&... arguments) {
  const DeviceGuard guard(on.device);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(grid(blocks));
  config.blockDim = dim3(kThreads);
  config.stream = static_cast<cudaStream_t>(on.handle);
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "launch a kernel");
}

template <class F>
void with_dtype(Dtype dtype, const F& f) {
  FASTSNN_ISA::with_type<__half, __nv_bfloat16>(dtype, f);
}

}  // namespace cuda
}  // namespace fastsnn
