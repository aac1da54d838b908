#pragma once

#include "../core/kernels.h"
#include "../core/stgr.h"

#define FASTSNN_CPU_KERNELS(X) FASTSNN_KERNELS(X) X(stgr_sgd, StgrSgd)

// What every instruction set provides; the last argument is the number of threads.
namespace fastsnn {

struct Kernels {
  const char* isa;
#define FASTSNN_MEMBER(name, ...) Kernel<int, __VA_ARGS__>* name;
  FASTSNN_CPU_KERNELS(FASTSNN_MEMBER)
#undef FASTSNN_MEMBER
};

}  // namespace fastsnn
