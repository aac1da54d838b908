"""A batch's whole update as one CUDA graph: all steps forward and backward, and the optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import backends

__all__ = ["GraphedUpdates"]

WARM_UP = 3  # batches that run eagerly first: optimizer state, libraries' workspaces, waits for the device
ANEW = 5  # captures in a row that other hyper-parameters may cause
Run = Callable[[Any, Tensor], tuple[Tensor, Tensor]]


class CUDA:
    """What is asked of the device."""

    @staticmethod
    def aside(call: Callable[[], Any]) -> Any:
        """call() on a side stream, as work is that a graph will hold."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            out = call()
        torch.cuda.current_stream().wait_stream(side)
        return out

    @staticmethod
    def waits(call: Callable[[], Any]) -> tuple[Any, str | None]:
        """call(), and where it waited for the device."""
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                out = call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
        found = [w for w in seen if "called a synchronizing" in str(w.message)]
        for other in seen:
            if other not in found:
                warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
        return out, f"{found[0].filename}, line {found[0].lineno}" if found else None

    @staticmethod
    def capture(call: Callable[[], Any], pool: Any) -> tuple[Callable[[], None], Any]:
        """(replay, outputs of every replay). Raises what the capture raises, the generator as it was."""
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        state, graph = generator.get_state(), torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=pool):
                out = call()
        except BaseException:
            # a capture that fails leaves the generator in it
            fresh = torch.Generator(generator.device)
            fresh.set_state(state)
            generator.graphsafe_set_state(fresh.graphsafe_get_state())
            raise
        return graph.replay, out

    @staticmethod
    def pool() -> Any:
        return torch.cuda.graph_pool_handle()


@dataclass
class Graphed:
    """One shape of batch. setting: hyper-parameters that the graph holds as numbers. anew: captures in a row."""

    batches: int = 0
    replay: Callable[[], None] | None = None
    x: tuple[Tensor, ...] = ()
    y: Tensor | None = None
    out: Any = None
    setting: Any = None
    anew: int = 0
    refusal: str | None = None


class GraphedUpdates:
    """Runs updates as graphs, one for each shape of batch; eagerly until it has one and where none can be."""

    device: Any = CUDA

    def __init__(self, net: nn.Module, optimizer: Optimizer) -> None:
        self.net, self.optimizer = net, optimizer
        self.refusal: str | None = None
        self._graphs: dict[Any, Graphed] = {}
        self._pool: Any = None
        self._warned: set[str] = set()

    def takes(self, x: Sequence[Tensor] | Tensor, y: Tensor, options: dict[str, Any]) -> bool:
        """Whether a graph can be tried; else `refusal` says why not."""
        self.refusal = self._obstacle(x, y, options)
        if self.refusal is not None:
            self._warn()
        return self.refusal is None

    def run(self, run: Run, x: Sequence[Tensor] | Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """run(x, y), or the replay that does the same."""
        found = self._graphs.setdefault(self._shape(x, y), Graphed())
        self.refusal = found.refusal
        if found.refusal is not None:
            self._warn()
            return run(x, y)
        if found.batches < WARM_UP:
            return self._warm_up(found, run, x, y)
        if found.replay is None or found.setting != self._setting():
            self._capture(found, run, x, y)
        else:
            found.anew = 0
        if found.replay is None:
            return self.run(run, x, y)
        for mine, given in zip(found.x, x, strict=True):
            mine.copy_(given)
        found.y.copy_(y)  # type: ignore[union-attr]
        found.replay()
        # a replay writes what Python does not see: caches of the weights must ask again
        torch.autograd.graph.increment_version([*self.net.parameters(), *self.net.buffers()])
        return found.out

    def _warm_up(self, found: Graphed, run: Run, x: Sequence[Tensor] | Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        found.batches += 1
        if found.batches < WARM_UP:
            return self.device.aside(lambda: run(x, y))
        out, where = self.device.waits(lambda: self.device.aside(lambda: run(x, y)))
        if where is not None:
            found.refusal = f"the update waits for the device ({where})"
        return out

    def _capture(self, found: Graphed, run: Run, x: Sequence[Tensor] | Tensor, y: Tensor) -> None:
        if found.replay is not None:
            found.anew += 1
        found.replay, found.out = None, None
        if found.anew > ANEW:
            found.refusal = (
                "the optimizer's hyper-parameters change at every batch and a graph holds them as numbers: give the "
                "learning rate as a tensor, to an optimizer with fused=True or capturable=True"
            )
            return
        self._pool = self._pool or self.device.pool()
        found.x, found.y, found.setting = tuple(x_t.clone() for x_t in x), y.clone(), self._setting()
        before, mine = self._addresses(), (found.x, found.y)
        try:
            found.replay, found.out = self.device.capture(lambda: run(*mine), self._pool)
        except Exception as error:
            found.refusal = f"it cannot be captured: {type(error).__name__}: {_first(error)}"
            self.optimizer.zero_grad()
            return
        moved = [name for name, address in self._addresses().items() if before.get(name) != address]
        if moved:
            found.replay, found.refusal = None, f"{', '.join(moved[:3])} is another tensor after every batch"

    def _addresses(self) -> dict[str, int]:
        named = [*self.net.named_parameters(), *self.net.named_buffers()]
        return {name: tensor.data_ptr() for name, tensor in named}

    def _obstacle(self, x: Sequence[Tensor] | Tensor, y: Tensor, options: dict[str, Any]) -> str | None:
        tensors = [*self.net.parameters(), *x, y]
        homes = {str(tensor.device) for tensor in tensors}
        if self.device is CUDA and (len(homes) > 1 or any(tensor.device.type != "cuda" for tensor in tensors)):
            return f"network and batch must be on one CUDA device and are on {', '.join(sorted(homes))}"
        if options.get("backward_steps") is not None:
            return "backward_steps draws other steps for every batch"
        if any(group.get("capturable") is False for group in self.optimizer.param_groups):
            return f"{type(self.optimizer).__name__} keeps numbers on the host; construct it with capturable=True"
        return None

    def _shape(self, x: Sequence[Tensor] | Tensor, y: Tensor) -> Any:
        """What a graph is made for."""
        tensors = tuple((t.shape, t.stride(), t.dtype) for t in (*x, y))
        kinds = tuple(p.requires_grad for p in self.net.parameters())
        cast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        return tensors, kinds, cast, backends.running("lif", y.device)

    def _setting(self) -> str:
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        for group in groups:
            group.update({k: f"a tensor at {v.data_ptr()}" for k, v in group.items() if isinstance(v, Tensor)})
        return repr((groups, getattr(self.optimizer, "epoch", None)))

    def _warn(self) -> None:
        if self.refusal not in self._warned:
            self._warned.add(str(self.refusal))
            warnings.warn(f"graph=True runs eagerly: {self.refusal}", RuntimeWarning, stacklevel=4)


def _first(error: BaseException) -> str:
    """What began it: the end of a capture raises another error over it."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error)[:300]
