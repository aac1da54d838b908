#pragma once

#include <string>

#include "../core/kernels.h"

// What the CUDA core provides. Errors are thrown as std::runtime_error.
namespace fastsnn {
namespace cuda {

struct Stream {
  int device;
  void* handle;  // cudaStream_t
};

#define FASTSNN_DECLARED(name, ...) Kernel<const Stream&, __VA_ARGS__> name;
FASTSNN_KERNELS(FASTSNN_DECLARED)
#undef FASTSNN_DECLARED

// Why the kernels cannot run on `device`, in CUDA's words; empty where they can.
std::string refusal(int device);
int driver_version();  // 0 without a driver

}  // namespace cuda
}  // namespace fastsnn
