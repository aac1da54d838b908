"""Kernel launches of one layer and step, counted: ours by the scheduler that runs them, torch's by its operations."""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from fastsnn._bench.cases import CASES
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

import fastsnn
from fastsnn import backends
from fastsnn.ops.common.dispatch import straight

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


def _count(call, started=lambda: cuda_host.controls().gpuless_launches()):
    """(what call returns, launches); started(): kernels of our own so far."""
    before = started()
    with straight(), TorchLaunches() as torch_launches:
        result = call()
    return result, torch_launches.calls + started() - before


def _launches(case, provider, x, g):
    work = provider.build(x, g)
    work.full()  # from the second step on, state is carried
    out, forward = _count(work.forward)
    _, backward = _count(lambda: work.backward(out))
    return Launches(case, provider.name, forward, backward)


@contextmanager
def _triton_launches():
    """A function that tells how many kernels Triton's interpreter ran."""
    from triton.runtime.interpreter import GridExecutor

    run, started = GridExecutor.__call__, []

    def call(self, *args, **kwargs):
        started.append(self.fn)
        with _disable_current_modes():  # what the interpreter does with torch, no GPU would
            return run(self, *args, **kwargs)

    GridExecutor.__call__ = call
    try:
        yield lambda: len(started)
    finally:
        GridExecutor.__call__ = run


@contextmanager
def _cuda_launches():
    backends.REGISTRY["cuda-host"] = cuda_host.Backend()
    try:
        yield cuda_host.controls().gpuless_launches
    finally:
        del backends.REGISTRY["cuda-host"]


COUNTERS = {"cuda-host": _cuda_launches, "triton": _triton_launches}


def osr_lif(backend, steps, **kwargs):
    """(forward, backward) of every step of a sequence of OSRLIF, which ends with the last."""
    return _of_steps(backend, fastsnn.OSRLIF.for_rule("ottt", 8, steps, **kwargs), steps)


def osr_and_ots(backend, steps, max_ratio):
    """The same of OSR and a neuron under OTS, one after the other."""
    norm = fastsnn.OSR2d(8, steps, max_ratio=max_ratio)
    return _of_steps(backend, nn.Sequential(norm, fastsnn.LIF.for_rule("ottt", threshold="ots")), steps)


def _of_steps(backend, net, steps):
    counted, buffers = [], dict(net.named_buffers())
    with COUNTERS[backend]() as started, fastsnn.use_backend(backend):
        for _ in range(steps):
            x, g = torch.randn(4, 8, 6, 6, requires_grad=True), torch.randn(4, 8, 6, 6)
            spikes, forward = _count(lambda: fastsnn.nn.plain(net(x)), started)  # noqa: B023
            given = (x, *net.parameters())
            _, backward = _count(lambda: torch.autograd.grad(spikes, given, g), started)  # noqa: B023
            counted.append((forward, backward))
    assert next(folds for name, folds in buffers.items() if name.endswith("num_batches_tracked")) == 1
    return counted


def rows():
    """Launches of fastsnn, as backend cuda-host, and of its reference."""
    with _cuda_launches(), fastsnn.use_backend("cuda-host"):
        return list(_rows())


def _rows():
    for name in (*STEPS, "bptt_sequence"):
        case = CASES[name]
        x, g = case.inputs(NEURONS)
        for provider in case.providers:
            if not provider.package:  # a peer takes another path on a GPU than here
                yield _launches(name, provider, x, g)
