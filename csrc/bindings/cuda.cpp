#include "../cuda/kernels.h"
#include "core.h"

// where the operands lie; a build for the host sets the CPU
#ifndef FASTSNN_DEVICE
#define FASTSNN_DEVICE fastsnn::bindings::dlpack::kCuda
#endif

using namespace fastsnn;

namespace {

struct CudaCore {
  using Where = cuda::Stream;

  static Where where(bindings::Arguments& arguments) {
    int64_t on[2]{};  // device, stream
    arguments("where", on);
    arguments.require(on[0] >= 0 && on[0] <= INT_MAX, "device must not be negative");
    return {int(on[0]), reinterpret_cast<void*>(on[1])};
  }
  static bindings::dlpack::Device device(const Where& on) { return {FASTSNN_DEVICE, on.device}; }

#define FASTSNN_CUDA(name, ...) static constexpr auto name = &cuda::name;
  FASTSNN_KERNELS(FASTSNN_CUDA)
#undef FASTSNN_CUDA
};

}  // namespace

PYBIND11_MODULE(FASTSNN_MODULE, m) {
  m.doc() = "fastsnn CUDA kernels: tensors in, no torch library. Use fastsnn.functional.";
  bindings::bind<CudaCore>(m);
  m.def("refusal", &cuda::refusal, "Why the kernels cannot run on a device; empty where they can.");
  m.def("driver_version", &cuda::driver_version, "CUDA version of the driver, such as 13000; 0 without one.");
  m.attr("archs") = FASTSNN_CUDA_ARCHS;
}
