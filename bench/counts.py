"""What is counted, not timed: bytes saved for backward, operations, peak memory against T, bitwise parity."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fastsnn
from fastsnn.nn import plain
from fastsnn.ops.common.dispatch import straight

from .cases import CASES, Provider, T, Workload, missing, product, release
from .record import Row, row

NEURONS = 4096
COUNTED = ("ottt_step", "ndot_step", "sltt_step", "bptt_sequence")
STEPS = (4, 128)
QUICK_STEPS = (2, 8)
TRACED_SEQUENCE = Provider("fastsnn", product(lambda: fastsnn.LIF.for_rule("ottt", step_mode="m")))


def _storages(tensors: Any) -> dict[int, int]:
    """Bytes of each distinct storage."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {storage._cdata: storage.nbytes() for storage in storages}


def saved_bytes(work: Workload) -> int:
    """Bytes that one call keeps for its backward and that are neither the input, a parameter nor the state."""
    work.full()
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    before = list(work.state().values())
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        out = work.forward()
    lives = _storages(chain(work.leaves, before, work.state().values()))
    extra = {key: size for key, size in _storages(saved).items() if key not in lives}
    work.backward(out)
    return sum(extra.values())


class CountOps(TorchDispatchMode):
    """Counts the aten operations that reach a backend."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


class PeakMemory(TorchDispatchMode):
    """Follows the bytes of live storages created inside; what operations allocate and free within is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


def _counted() -> Iterator[tuple[str, str, Provider, Workload]]:
    """(case, kernel, provider, workload) of all that runs eagerly and is installed."""
    for name in COUNTED:
        case = CASES[name]
        x, g = case.inputs(NEURONS)
        for provider in case.providers:
            if provider.package != "torch" and not missing(provider.package):
                yield name, case.kernel, provider, provider.build(x, g)
    x, g = CASES["bptt_sequence"].inputs(NEURONS)
    yield "ottt_sequence", "lif_sequence", TRACED_SEQUENCE, TRACED_SEQUENCE.build(x, g)


def _row(value: float, metric: str, unit: str, **about: Any) -> Row:
    points = dict.fromkeys(("p20", "p50", "p80"), value)
    return row(**about, **points, metric=metric, unit=unit, dtype="float32", repetitions=1)


def step_rows() -> Iterator[Row]:
    """Saved bytes a neuron and step, aten operations of forward and of backward."""
    for case, kernel, provider, work in _counted():
        about = {"case": case, "kernel": kernel, "provider": provider.name, "peer": release(provider.package)}
        steps = NEURONS * (T if kernel == "lif_sequence" else 1)
        saved = saved_bytes(work) / steps
        yield _row(saved, "saved_bytes", "B/neuron/step", mode="forward", size=NEURONS, **about)
        with straight(), CountOps() as forward:
            out = work.forward()
        with straight(), CountOps() as backward:
            work.backward(out)
        for mode, ops in (("forward", forward), ("backward", backward)):
            yield _row(ops.calls, "aten_ops", "calls", mode=mode, size=NEURONS, **about)


def conv_net(neuron: Callable[[], nn.Module]) -> nn.Sequential:
    """Two convolutions and a readout on [B, 3, 16, 16]."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        neuron(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        neuron(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def train(neuron: Callable[[], nn.Module], mode: str, steps: int) -> None:
    """One batch of T steps: mode O updates at every step, A once after the last, bptt through all of them."""
    torch.manual_seed(0)
    net = conv_net(neuron)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(8, 3, 16, 16), torch.arange(8)
    total = torch.zeros(())
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(x), y) / steps
        if mode == "bptt":
            total = total + loss
            continue
        loss.backward()
        if mode == "O":
            optimizer.step()
            optimizer.zero_grad()
    if mode == "bptt":
        total.backward()
    optimizer.step()


def peak_bytes(neuron: Callable[[], nn.Module], mode: str, steps: int) -> int:
    """Largest sum of live tensor bytes while a network is built and trained for a batch."""
    with straight(), PeakMemory() as memory:
        train(neuron, mode, steps)
    return memory.peak


def memory_rows(steps: tuple[int, ...]) -> Iterator[Row]:
    """Peak bytes of training at each T: OTTT in modes O and A, BPTT here and in SpikingJelly."""
    online = ("fastsnn", "", lambda: fastsnn.LIF.for_rule("ottt"))
    subjects = [("O", *online), ("A", *online), ("bptt", "fastsnn", "", fastsnn.LIF)]
    if not missing("spikingjelly"):
        from spikingjelly.activation_based.neuron import LIFNode

        subjects.append(("bptt", "spikingjelly", release("spikingjelly"), LIFNode))
    for mode, provider, version, neuron in subjects:
        for size in steps:
            about = {"provider": provider, "mode": mode, "size": size, "peer": version}
            peak = peak_bytes(neuron, mode, size)
            yield _row(peak, "peak_bytes", "B", case="peak_memory", kernel="training", **about)


def bitwise_equal(rule: str, n: int = 2**16 + 7, steps: int = 6) -> bool:
    """Whether spikes and state of native kernels and reference are the same bits at every step (tau 3)."""
    rng = torch.Generator().manual_seed(0)
    fused, plain_torch = (fastsnn.LIF.for_rule(rule, tau=3.0) for _ in range(2))
    for _ in range(steps):
        x = torch.randn(n, generator=rng)
        s = plain(fused(x))
        with fastsnn.use_backend("reference"):
            s_ref = plain(plain_torch(x))
        pairs = zip((s, *fused.state), (s_ref, *plain_torch.state), strict=True)
        if not all(torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor)):
            return False
    return True


def parity_rows() -> Iterator[Row]:
    """1 for each rule whose kernels equal the reference bit for bit."""
    for rule in ("bptt", "sltt", "ottt", "ndot", "ndot_released"):
        about = {"case": "bitwise_parity", "kernel": "lif_step", "provider": "fastsnn", "mode": rule}
        yield _row(float(bitwise_equal(rule)), "bitwise", "bool", size=2**16 + 7, **about)


def count_rows(quick: bool) -> list[Row]:
    """All counts; they are the same at every run and under every allocator."""
    return [*step_rows(), *memory_rows(QUICK_STEPS if quick else STEPS), *parity_rows()]
