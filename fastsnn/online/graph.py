"""A batch's whole update as one graph: all steps forward and backward, and the optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from .. import backends
from ..types import LIFParams
from . import cuda_graph, fx_graph

__all__ = ["GraphedUpdates"]

WARM_UP = 3  # batches that run eagerly first: optimizer state, libraries' workspaces, waits for the device
NUMBERS = (bool, int, float, str, LIFParams)  # of a layer's attributes
ANEW = 5  # captures in a row that other hyper-parameters may cause
Run = Callable[[Any, Tensor], tuple[Tensor, Tensor]]


@dataclass
class Graphed:
    """One shape of batch. setting: what the graph holds as it was. left: attributes that every update leaves anew, as
    (module's name, attribute). anew: captures in a row. checked: whether a replay was compared with what the layers
    give."""

    batches: int = 0
    replay: Run | None = None
    setting: Any = None
    left: frozenset[tuple[str, str]] = frozenset()
    anew: int = 0
    checked: bool = False
    refusal: str | None = None


class Seen(NamedTuple):
    """Of a network and its optimizer: parameters, buffers and the optimizer's tensors by name; what both are set to, by
    (module's name, attribute); whether something has hooks."""

    tensors: dict[str, Tensor]
    settings: dict[tuple[str, str], Any]
    hooked: bool

    def addresses(self) -> dict[str, int]:
        return {name: tensor.data_ptr() for name, tensor in self.tensors.items()}

    def without(self, left: frozenset[tuple[str, str]]) -> dict[tuple[str, str], Any]:
        return {place: value for place, value in self.settings.items() if place not in left}


def look(net: nn.Module, optimizer: Optimizer) -> Seen:
    tensors: dict[str, Any] = {}
    settings: dict[tuple[str, str], Any] = {("", "epoch"): getattr(optimizer, "epoch", None)}
    hooks: list[Any] = [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
    for prefix, module in net.named_modules():
        settings[prefix, "class"] = type(module)
        for name, value in module.__dict__.items():
            if type(value) in NUMBERS:
                settings[prefix, name] = value
            elif type(value) is Tensor:
                settings[prefix, name] = value.data_ptr()
        hooks += [module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks]
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                tensors[f"{prefix}.{name}" if prefix else name] = tensor
                settings[prefix, name] = tensor.requires_grad
                hooks += [tensor._backward_hooks, tensor._post_accumulate_grad_hooks]
    for i, leaf in enumerate(pytree.tree_leaves(optimizer.state_dict())):
        if isinstance(leaf, Tensor):
            tensors[f"the optimizer's {i}"] = leaf
        else:
            settings["the optimizer", str(i)] = leaf
    return Seen(tensors, settings, any(hooks) or _has_any_global_hook())


class Before:
    """Copies of what an update writes: parameters, buffers, the optimizer's tensors, the CPU's generator."""

    def __init__(self, net: nn.Module, optimizer: Optimizer) -> None:
        self._written = [*look(net, optimizer).tensors.values()]
        self.values, self._generator = [t.detach().clone() for t in self._written], torch.get_rng_state()

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, value in zip(self._written, self.values, strict=True):
            tensor.copy_(value)
        torch.set_rng_state(self._generator)


class GraphedUpdates:
    """Runs updates as graphs, one for each shape of batch; eagerly until it has one and where none can be."""

    def __init__(self, net: nn.Module, optimizer: Optimizer) -> None:
        self.net, self.optimizer = net, optimizer
        self.refusal: str | None = None
        self.devices: dict[str, Any] = {"cuda": cuda_graph, "cpu": fx_graph}
        self._device: Any = None
        self._graphs: dict[Any, Graphed] = {}
        self._pool: Any = None
        self._warned: set[str] = set()

    def run(self, run: Run, x: Sequence[Tensor] | Tensor, y: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """run(x, y), which is of these options, or the replay that does the same; where it is the former though a
        graph was asked for, `refusal` says why."""
        seen = look(self.net, self.optimizer)
        self.refusal = self._obstacle(seen, x, y, options)
        if self.refusal is not None:
            self._warn()
            return run(x, y)
        found = self._graphs.setdefault(self._shape(x, y), Graphed())
        self.refusal = found.refusal
        if found.refusal is not None:
            self._warn()
            return run(x, y)
        if found.batches < WARM_UP:
            return self._warm_up(found, run, x, y)
        if found.replay is None or found.setting != (options, seen.without(found.left), seen.addresses()):
            out = self._capture(found, seen, run, x, y, options)
            if out is not None:
                return out
        else:
            found.anew = 0
        if found.replay is None:
            return self.run(run, x, y, options)
        if self._device.RUNS and not found.checked:
            return self._check(found, run, x, y)
        out = found.replay(x, y)
        # a replay writes what Python does not see: caches of the weights must ask again
        torch.autograd.graph.increment_version(seen.tensors.values())
        return out

    def _warm_up(self, found: Graphed, run: Run, x: Sequence[Tensor] | Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        found.batches += 1
        if found.batches < WARM_UP:
            return self._device.aside(lambda: run(x, y))
        out, where = self._device.waits(lambda: self._device.aside(lambda: run(x, y)))
        if where is not None:
            found.refusal = f"the update waits for the device ({where})"
        return out

    def _capture(
        self,
        found: Graphed,
        seen: Seen,
        run: Run,
        x: Sequence[Tensor] | Tensor,
        y: Tensor,
        options: dict[str, Any],
    ) -> tuple[Tensor, Tensor] | None:
        """A graph for `found`, or why there is none; what the batch gave where it was run."""
        if found.replay is not None:
            found.anew += 1
        found.replay, found.checked = None, False
        if found.anew > ANEW:
            found.refusal = (
                "the optimizer's hyper-parameters, or a layer's, change at every batch and a graph holds them as "
                "numbers: give the learning rate as a tensor, to an optimizer with fused=True or capturable=True"
            )
            return None
        self._pool = self._pool or self._device.pool()
        there = seen.addresses()
        before = Before(self.net, self.optimizer) if self._device.RUNS else None
        try:
            found.replay, out, found.left = self._device.capture(run, x, y, self.net, self._pool)
        except FloatingPointError:
            raise
        except Exception as error:
            if before is not None:
                before.restore()
            found.refusal = f"it cannot be captured: {type(error).__name__}: {_first(error)}"
            self.optimizer.zero_grad()
            return None
        found.setting = (options, seen.without(found.left), there)
        moved = sorted(look(self.net, self.optimizer).addresses().items() - there.items())
        if moved:
            found.replay, found.refusal = None, f"{', '.join(dict(moved[:3]))} is another tensor after every batch"
        return out

    def _check(self, found: Graphed, run: Run, x: Sequence[Tensor] | Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """What the layers give; no graph from here on where its replay gives anything else."""
        before, replayed = Before(self.net, self.optimizer), []
        with suppress(Exception):  # which the layers raise, too, where the batch is why
            replayed = [*found.replay(x, y), *Before(self.net, self.optimizer).values]  # type: ignore[misc]
        before.restore()
        out = run(x, y)
        found.checked = True
        try:
            expected = [*out, *Before(self.net, self.optimizer).values]
            torch.testing.assert_close(replayed, expected, equal_nan=True)
        except AssertionError:
            found.replay = None
            found.refusal = (
                "its graph gives other numbers than the layers: something in the network, the loss or the optimizer "
                "decides in Python, or works past torch's operators (an extension)"
            )
        return out

    def _obstacle(self, seen: Seen, x: Sequence[Tensor] | Tensor, y: Tensor, options: dict[str, Any]) -> str | None:
        homes = {tensor.device for tensor in (*self.net.parameters(), *x, y)}
        self._device = self.devices.get(y.device.type)
        if len(homes) > 1 or self._device is None:
            found = ", ".join(sorted(map(str, homes)))
            return f"network and batch must be on the CPU or one CUDA device and are on {found}"
        if options.get("backward_steps") is not None:
            return "backward_steps draws other steps for every batch"
        if seen.hooked:
            return "hooks, of a module, a parameter or the optimizer, are Python, which no replay runs"
        return self._device.obstacle(self.optimizer)

    def _shape(self, x: Sequence[Tensor] | Tensor, y: Tensor) -> Any:
        """What a graph is made for."""
        tensors = tuple((t.shape, t.stride(), t.dtype) for t in (*x, y))
        device = y.device
        cast = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
        return tensors, cast, backends.override(), backends.running("lif", device)

    def _warn(self) -> None:
        if self.refusal not in self._warned:
            self._warned.add(str(self.refusal))
            warnings.warn(f"graph=True runs eagerly: {self.refusal}", RuntimeWarning, stacklevel=4)


def _first(error: BaseException) -> str:
    """What began it: the end of a capture raises another error over it."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error)[:300]
