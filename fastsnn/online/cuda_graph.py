"""An update as one CUDA graph: the device repeats its launches, without Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .left import anew, attributes

Run = Callable[[Sequence[Tensor], Tensor], tuple[Tensor, Tensor]]

RUNS = False  # a capture leaves the batch to the replay


def obstacle(optimizer: Optimizer) -> str | None:
    """Why no update of this optimizer can be captured; None where it may be."""
    if any(group.get("capturable") is False for group in optimizer.param_groups):
        return f"{type(optimizer).__name__} keeps numbers on the host; construct it with capturable=True"
    return None


def aside(call: Callable[[], Any]) -> Any:
    """call() on a side stream, as work is that a graph will hold."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        out = call()
    torch.cuda.current_stream().wait_stream(side)
    return out


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


def capture(
    run: Run, x: Sequence[Tensor], y: Tensor, net: nn.Module, pool: Any
) -> tuple[Run, None, frozenset[tuple[str, str]]]:
    """The replay of run on batches like this one, which is not run. What is left on modules lies where replays write.
    Raises what the capture raises, the generator as it was."""
    before = attributes(net)
    mine, target = tuple(x_t.clone() for x_t in x), y.clone()
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    state, graph = generator.get_state(), torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, pool=pool):
            out = run(mine, target)
    except BaseException:
        # a capture that fails leaves the generator in it
        fresh = torch.Generator(generator.device)
        fresh.set_state(state)
        generator.graphsafe_set_state(fresh.graphsafe_get_state())
        raise

    def replay(x: Sequence[Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
        for kept, given in zip(mine, x, strict=True):
            kept.copy_(given)
        target.copy_(y)
        graph.replay()
        return out

    return replay, None, frozenset(anew(before, attributes(net)))


def pool() -> Any:
    """Memory that the graphs of a network share."""
    return torch.cuda.graph_pool_handle()
