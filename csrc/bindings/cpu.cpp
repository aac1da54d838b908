#include "../cpu/dispatch.h"
#include "checks.h"

using namespace fastsnn;

namespace {

// A kernel of the instruction set in use
template <class... Structs>
struct Active {
  template <Kernel<int, Structs...>* Kernels::* kernel>
  static void run(const Structs&... structs, int threads) {
    (active_kernels().*kernel)(structs..., threads);
  }
};

struct CpuCore {
  using Where = int;  // threads
  static constexpr int kMostThreads = 1024;

  static int where(bindings::Arguments& arguments) {
    int threads = 0;
    arguments("where", threads);
    arguments.require(threads >= 1 && threads <= kMostThreads, "threads must be in 1..1024");
    return threads;
  }
  static bindings::dlpack::Device device(int) { return {bindings::dlpack::kCpu, 0}; }

#define FASTSNN_ACTIVE(name, ...) static constexpr auto name = &Active<__VA_ARGS__>::run<&Kernels::name>;
  FASTSNN_CPU_KERNELS(FASTSNN_ACTIVE)
#undef FASTSNN_ACTIVE
};

void bind_stgr(bindings::py::module_& m, bindings::py::dict kernels) {
  using namespace bindings;
  using Core = CpuCore;
  FASTSNN_BIND(stgr_sgd, StgrSgd)
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "fastsnn CPU kernels: tensors in, no torch library. Use fastsnn.functional.";
  bind_stgr(m, bindings::bind<CpuCore>(m));
  auto checks = m.def_submodule("checks", "Checks the operands of a call as the kernels do, and runs nothing.");
  bindings::bind_kernels<bindings::Checks>(checks);
  m.def("isas", &usable_isas, "Instruction sets this processor can run, best first.");
  m.def("isa", [] { return std::string(active_kernels().isa); }, "The instruction set in use.");
  m.def("choose_isa", &choose_isa, "Use one of isas(); false if it cannot run here.");
#if defined(_OPENMP)
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
}
