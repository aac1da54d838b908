#pragma once

// Stands in for CUDA's header of this name, so that g++ compiles .cu files and runs their kernels on fibres.
// Types, half and bfloat16 are NVIDIA's own; the functions here are those that the kernels and launches use.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <dlfcn.h>
#include <driver_types.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include "fibres.h"
#include "tensor_cores.h"

#undef __shared__
#define __shared__ declare_shared_memory_with_FASTSNN_SHARED
#define __launch_bounds__(...)
#define FASTSNN_SHARED(type, name, count) \
  static char name##_key;                 \
  type(&name)[count] = *static_cast<type(*)[count]>(gpuless::shared_array(&name##_key, sizeof(type[count])))

// The host's side: one device, whose launches run at once

#define GPULESS_API extern "C" __attribute__((visibility("hidden"))) inline

GPULESS_API cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
GPULESS_API cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
GPULESS_API cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
GPULESS_API cudaError_t cudaGetLastError() { return cudaSuccess; }
GPULESS_API cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
GPULESS_API cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
GPULESS_API cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

GPULESS_API const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    default:
      return "unrecognized error code";
  }
}

GPULESS_API const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    default:
      return "unrecognized error code";
  }
}

GPULESS_API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrWarpSize:
      *value = gpuless::kWarp;
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = gpuless::kMaxThreads;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = 1;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 8;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    default:
      return cudaErrorInvalidValue;
  }
}

template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  *attributes = cudaFuncAttributes{};
  attributes->binaryVersion = attributes->ptxVersion = 80;
  attributes->maxThreadsPerBlock = gpuless::kMaxThreads;
  return cudaSuccess;
}

namespace gpuless {

// Where set, launches go there and not to the kernel: its symbol, grid and block, bytes of dynamic shared memory, and
// the parameters as a device would get them, and how many bytes. Returns whether it ran. Kernels must be visible
// symbols.
using LaunchHook = bool (*)(const char* symbol, const unsigned* size, size_t dynamic_bytes, const unsigned char* params,
                            size_t param_bytes);
inline LaunchHook launch_hook = nullptr;

template <class T>
void append(std::vector<unsigned char>& block, const T& parameter) {
  const size_t at = (block.size() + alignof(T) - 1) / alignof(T) * alignof(T);
  block.resize(at + sizeof(T));
  std::memcpy(block.data() + at, &parameter, sizeof(T));
}

template <class... Parameters>
bool launch_through_hook(Dim grid, Dim block, size_t dynamic_bytes, void (*kernel)(Parameters...),
                         const std::tuple<Parameters...>& parameters) {
  Dl_info symbol;
  if (!dladdr(reinterpret_cast<void*>(kernel), &symbol) || !symbol.dli_sname) return false;
  std::vector<unsigned char> params;
  std::apply([&](const auto&... parameter) { (append(params, parameter), ...); }, parameters);
  const unsigned size[] = {grid.x, grid.y, grid.z, block.x, block.y, block.z};
  return launch_hook(symbol.dli_sname, size, dynamic_bytes, params.data(), params.size());
}

}  // namespace gpuless

GPULESS_EXPORT void gpuless_launch_hook(gpuless::LaunchHook hook) { gpuless::launch_hook = hook; }

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  constexpr size_t kMaxDynamicBytes = 48 * 1024;
  const dim3 g = config->gridDim, b = config->blockDim;
  const gpuless::Dim grid{g.x, g.y, g.z}, block{b.x, b.y, b.z};
  if (!gpuless::fits(grid, block)) return cudaErrorInvalidConfiguration;
  if (config->numAttrs || config->dynamicSmemBytes > kMaxDynamicBytes) return cudaErrorInvalidValue;
  const std::tuple<Parameters...> parameters(std::forward<Arguments>(arguments)...);
  if (gpuless::launch_hook) {
    const bool ran = gpuless::launch_through_hook(grid, block, config->dynamicSmemBytes, kernel, parameters);
    return ran ? cudaSuccess : cudaErrorLaunchFailure;
  }
  gpuless::launch(grid, block, config->dynamicSmemBytes, [&] { std::apply(kernel, parameters); });
  return cudaSuccess;
}

// The device's side

inline constexpr int warpSize = gpuless::kWarp;
inline const gpuless::Dim &threadIdx = gpuless::thread_index, &blockIdx = gpuless::block_index,
                          &blockDim = gpuless::block_size, &gridDim = gpuless::grid_size;

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  gpuless::barrier(gpuless::Place{file, line});
}
inline void __syncwarp(unsigned mask = 0xffffffffu) { gpuless::warp_sync(mask); }
inline unsigned __ballot_sync(unsigned mask, int vote) { return gpuless::warp_vote(mask, vote != 0); }
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, !vote) == 0; }

namespace gpuless {

template <class T>
T shuffle(Shuffle mode, unsigned mask, T value, unsigned b, int width) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves at most 8 bytes");
  const unsigned clamp = mode == Shuffle::up ? 0 : 31;
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp_shuffle(mask, bits, shuffle_source(mode, b, unsigned(kWarp - width) << 8 | clamp).lane);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace gpuless

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize) {
  return gpuless::shuffle(gpuless::Shuffle::index, mask, value, unsigned(lane), width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize) {
  return gpuless::shuffle(gpuless::Shuffle::butterfly, mask, value, unsigned(lanes), width);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = warpSize) {
  return gpuless::shuffle(gpuless::Shuffle::down, mask, value, lanes, width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = warpSize) {
  return gpuless::shuffle(gpuless::Shuffle::up, mask, value, lanes, width);
}

template <class T>
void __stwb(T* to, T value) {
  *to = value;
}

inline int atomicAdd(int* at, int value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
inline float atomicAdd(float* at, float value) {
  float old, sum;
  __atomic_load(at, &old, __ATOMIC_RELAXED);
  do {
    sum = old + value;
  } while (!__atomic_compare_exchange(at, &old, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
