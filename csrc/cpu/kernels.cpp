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
const Kernels kernels = {FASTSNN_STRING(FASTSNN_ISA),
                         lif_forward,
                         lif_backward_online,
                         lif_backward_bptt,
                         standardize_forward,
                         standardize_backward,
                         mpdr_forward,
                         mpdr_backward_online,
                         mpdr_backward_bptt,
                         stgr_sgd,
                         empf_forward,
                         empf_backward,
                         empf_potential,
                         empf_norm_forward,
                         empf_norm_sums,
                         empf_norm_backward,
                         binarize_forward,
                         binarize_backward,
                         packed_product,

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
