// Compiled once per instruction set, with FASTSNN_ISA and the matching compiler flags.
#include "kernels.h"

#include "binary.h"
#include "empf.h"
#include "lif.h"
#include "mpdr.h"
#include "osr.h"
#include "ots.h"
#include "standardize.h"
#include "stgr.h"

#define FASTSNN_STRING_(x) #x
#define FASTSNN_STRING(x) FASTSNN_STRING_(x)

namespace fastsnn {
namespace FASTSNN_ISA {

extern const Kernels kernels;
#define FASTSNN_PLACE(name, ...) name,
const Kernels kernels = {FASTSNN_STRING(FASTSNN_ISA), FASTSNN_CPU_KERNELS(FASTSNN_PLACE)};
#undef FASTSNN_PLACE

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
