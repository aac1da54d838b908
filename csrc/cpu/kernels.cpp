// Compiled once per instruction set, with FASTSNN_ISA and the matching compiler flags.
#include "kernels.h"

#include "lif.h"
#include "osr.h"
#include "ots.h"
#include "standardize.h"

#define FASTSNN_STRING_(x) #x
#define FASTSNN_STRING(x) FASTSNN_STRING_(x)

namespace fastsnn {
namespace FASTSNN_ISA {

extern const Kernels kernels;
const Kernels kernels = {FASTSNN_STRING(FASTSNN_ISA),
                         lif_forward,
                         lif_backward_online,
                         lif_backward_bptt,
                         standardize_forward,
                         standardize_backward,
                         osr_forward,
                         osr_reduce,
                         osr_gradient,
                         osr_lif_forward,
                         osr_lif_reduce,
                         ots_charge,
                         ots_fire,
                         ots_backward};

}  // namespace FASTSNN_ISA
}  // namespace fastsnn
