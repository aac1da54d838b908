"""Kernel launches of one layer and step, counted: ours by the scheduler that runs them, torch's by its operations."""

from dataclasses import dataclass

from fastsnn._bench.cases import CASES
from torch.utils._python_dispatch import TorchDispatchMode

import fastsnn
from fastsnn import backends
from fastsnn.ops.dispatch import straight

from . import cuda_host

NEURONS = 4096
STEPS = ("sltt_step", "ottt_step", "ndot_step")


@dataclass(frozen=True)
class Launches:
    """How many kernels one call and its backward start."""

    case: str
    provider: str
    forward: int
    backward: int


class TorchLaunches(TorchDispatchMode):
    """Counts operations of torch that would start a kernel: neither views nor bare allocations."""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        allocates = func.overloadpacket.__name__.startswith(("empty", "new_empty"))
        self.calls += not (func.is_view or allocates or func.overloadpacket.__name__ == "detach")
        return func(*args, **(kwargs or {}))


def _count(call):
    """(what call returns, launches)"""
    before = cuda_host.controls().gpuless_launches()
    with straight(), TorchLaunches() as torch_launches:
        result = call()
    return result, torch_launches.calls + cuda_host.controls().gpuless_launches() - before


def _launches(case, provider, x, g):
    work = provider.build(x, g)
    work.full()  # from the second step on, state is carried
    out, forward = _count(work.forward)
    _, backward = _count(lambda: work.backward(out))
    return Launches(case, provider.name, forward, backward)


def rows():
    """Launches of fastsnn, as backend cuda-host, and of its reference."""
    backends.REGISTRY["cuda-host"] = cuda_host.Backend()
    try:
        with fastsnn.use_backend("cuda-host"):
            return list(_rows())
    finally:
        del backends.REGISTRY["cuda-host"]


def _rows():
    for name in (*STEPS, "bptt_sequence"):
        case = CASES[name]
        x, g = case.inputs(NEURONS)
        for provider in case.providers:
            if not provider.package:  # a peer takes another path on a GPU than here
                yield _launches(name, provider, x, g)
