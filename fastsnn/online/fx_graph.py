"""An update on the CPU as one FX graph: what torch and the kernels were called with, in one function without autograd,
modules and their checks. Its numbers are those of the layers."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..ops.common.library import straight
from .left import anew, attributes, refuse_others

Run = Callable[[Sequence[Tensor], Tensor], tuple[Tensor, Tensor]]

RUNS = True  # a capture is a batch, whose values Python may have looked at: the first replay is checked
TORCH = os.path.join(os.path.dirname(torch.__file__), "")
PAST = (Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__)
SAME = (torch.ops.aten.alias.default, torch.ops.aten.detach.default)  # their input, outside autograd


def obstacle(optimizer: Optimizer) -> str | None:
    """Why no update can be captured; None where it may be."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return "processes exchange gradients behind torch's operators"
    if any({"fused", "capturable"} <= group.keys() and not group["fused"] for group in optimizer.param_groups):
        return f"{type(optimizer).__name__} reads its numbers; construct it with fused=True"
    return None


def aside(call: Callable[[], Any]) -> Any:
    """call()"""
    return call()


def waits(call: Callable[[], Any]) -> tuple[Any, None]:
    """call(), which waits for no device."""
    return call(), None


def _refuse(reader: str) -> NoReturn:
    """Raises RuntimeError where a value is read: what follows from it would be fixed."""
    raise RuntimeError(f"{reader} reads a value ({_outside_torch()})")


class _Operators(TorchDispatchMode):
    """Refuses those that read values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.data_dependent_output in func.tags:
            _refuse(str(func))
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    """Refuses those that read values past the dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PAST:
            _refuse(f"Tensor.{func.__name__}")
        return func(*args, **(kwargs or {}))


def _outside_torch() -> str:
    """The innermost line of Python that is not torch's."""
    frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith((TORCH, __file__))]
    return f"{frames[-1].filename}, line {frames[-1].lineno}"


def capture(
    run: Run, x: Sequence[Tensor], y: Tensor, net: nn.Module, pool: None
) -> tuple[Run, tuple[Tensor, Tensor], frozenset[tuple[str, str]]]:
    """The replay of run on batches like this one, what it gave for this one, and which attributes it leaves anew.
    Raises what run raises, and RuntimeError where a value is read or what is left cannot be put back."""
    from torch.fx.experimental.proxy_tensor import make_fx

    before, found, left = attributes(net), None, {}

    def read(x: Sequence[Tensor], y: Tensor) -> Any:
        nonlocal found, left
        with _Operators(), _Functions():
            found = run(x, y)
        refuse_others(before, now := attributes(net))
        left = anew(before, now)
        return found, [*left.values()]

    module = make_fx(read)(list(x), y)
    _strip(module.graph)
    module.recompile()
    places = [(net.get_submodule(name), key) for name, key in left]

    def replay(x: Sequence[Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            out, values = module.forward(list(x), y)
        for (holder, key), value in zip(places, values, strict=True):
            setattr(holder, key, value)
        return out

    return replay, found, frozenset(left)  # type: ignore[return-value]


def _strip(graph: torch.fx.Graph) -> None:
    """Leave out what changes nothing outside autograd, and call kernels without the dispatcher."""
    graph.eliminate_dead_code()  # while operators tell what they write
    for node in reversed(graph.nodes):
        target: Any = node.target
        if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
            continue
        if target in SAME:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif target.namespace == "profiler":
            graph.erase_node(node)
        elif target.namespace == "fastsnn":
            node.target = straight(target)


def pool() -> None:
    """Graphs share no memory."""
