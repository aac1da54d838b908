#pragma once

#include "../core/mpdr.h"
#include "kernels.h"

// Binds LIF with MPDR of a core that has it: the arguments of the plain kernels and what MPDR adds.
namespace fastsnn {
namespace bindings {

template <class Core>
void bind_mpdr(py::module_& m) {
  m.def("mpdr_forward", [](const LifParams& p, typename Core::Execution on, int64_t T, int64_t n, int dtype, bool first,
                           bool potential_is_v, Address x, Address potential, Address trace, Address ratio,
                           Address keep, Address spikes, Address u_last, Address u_seq, Address v_last, Address v_seq,
                           Address trace_seq, Address ratio_last, Address moments, Address room) {
    Bindings<Core>::check(on, T, n, dtype);
    if (T == 0 || n == 0) return;
    require(x && spikes && moments, "x, spikes and moments must not be null");
    require(p.trace == int(FASTSNN_ISA::Trace::none) || trace_seq, "a traced rule needs trace_seq");
    const LifForward lif{T,
                         n,
                         Dtype(dtype),
                         first,
                         potential_is_v,
                         pointer(x),
                         pointer(potential),
                         pointer(trace),
                         pointer(ratio),
                         pointer(keep),
                         pointer(spikes),
                         pointer(u_last),
                         pointer(u_seq),
                         pointer(v_last),
                         pointer(v_seq),
                         pointer(trace_seq),
                         pointer(ratio_last)};
    py::gil_scoped_release nogil;
    Core::mpdr_forward(p, MpdrForward{lif, pointer(moments), pointer(room)}, on);
  });
  m.def("mpdr_backward",
        [](const LifParams& p, typename Core::Execution on, bool bptt, int64_t T, int64_t n, int dtype,
           bool potential_is_v, Address g_spikes, Address keep, Address u, Address x, Address potential,
           Address g_v_last, Address g_v_seq, Address g_x, Address g_v_first, Address pulls, Address g_local) {
          Bindings<Core>::check(on, T, n, dtype);
          if (T == 0 || n == 0) return;
          require((u || x) && g_x && pulls, "g_x, pulls and one of u, x must not be null");
          require(!(bptt && g_local), "the gradient through time has no local part");
          const LifBackward lif{T,
                                n,
                                Dtype(dtype),
                                potential_is_v,
                                pointer(g_spikes),
                                pointer(keep),
                                pointer(u),
                                pointer(x),
                                pointer(potential),
                                pointer(g_v_last),
                                pointer(g_v_seq),
                                pointer(g_x),
                                pointer(g_v_first)};
          const MpdrBackward k{lif, pointer(pulls), pointer(g_local)};
          py::gil_scoped_release nogil;
          (bptt ? Core::mpdr_backward_bptt : Core::mpdr_backward_online)(p, k, on);
        });
}

}  // namespace bindings
}  // namespace fastsnn
