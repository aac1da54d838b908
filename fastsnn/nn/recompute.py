"""Gradient checkpointing of layers with state: a segment is run again from the state of its first run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from .. import backends

__all__ = ["checkpoint"]

_in_backward = torch._C._current_graph_task_id
_OF_ANY_MODULE = frozenset(nn.Module().__dict__) - {"training"}


class _Here(threading.local):
    """Segments that run now in this thread, outermost first."""

    segments: tuple[Segment, ...] = ()


_here = _Here()


def met(layer: Any) -> None:
    """The state of a layer is about to be read, written or changed by a call."""
    for segment in _here.segments:
        segment.meets(layer)


def running(layer: Any) -> None:
    """A layer with state is about to run.

    Raises RuntimeError where a backward pass runs it outside of `checkpoint`: it would start from a later state.
    """
    segments = _here.segments
    if _in_backward() != -1 and not any(segment.repeats for segment in segments):
        raise RuntimeError(
            f"{type(layer).__name__} keeps state between calls and was called within a backward pass, as gradient "
            "checkpointing does to recompute a segment: it would start from the state of its last call. Use "
            "fastsnn.checkpoint(function, *args) in place of torch.utils.checkpoint, which starts from that of its "
            "first run"
        )
    if segments:
        met(layer)


class _Kept:
    """All that a call of a layer may change: its attributes and buffers, not its parameters and children."""

    def __init__(self, layer: nn.Module) -> None:
        names = layer.__dict__.keys() - _OF_ANY_MODULE
        self.attributes = {name: layer.__dict__[name] for name in names}
        self.buffers = dict(layer._buffers)

    def map(self, fn: Callable[[Tensor], Tensor]) -> _Kept:
        """fn of every tensor."""
        other = object.__new__(_Kept)
        other.attributes = {name: _map(fn, value) for name, value in self.attributes.items()}
        other.buffers = {name: _map(fn, buffer) for name, buffer in self.buffers.items()}
        return other

    def put(self, layer: nn.Module) -> None:
        layer.__dict__.update(self.attributes)
        layer._buffers.update(self.buffers)


def _map(fn: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return fn(value)
    return value.map(fn) if hasattr(value, "map") else value


def _copy(tensor: Tensor) -> Tensor:
    """Outside of the graph, which goes on from it at the second run as at the first."""
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


class Segment:
    """A function to be run now and again in a backward pass; the layers it meets, as they were at its first run."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.repeats, self.backend = function, False, backends.override()
        self.first: dict[Any, _Kept] = {}
        self.done = False

    def meets(self, layer: Any) -> None:
        """Keeps the layer as it is, before its first change in this segment."""
        if layer in self.first:
            return
        if self.repeats:
            raise RuntimeError(
                f"{type(layer).__name__} was not called when the function of fastsnn.checkpoint ran first, and is when "
                "it is repeated: the function must do the same each time"
            )
        self.first[layer] = _Kept(layer).map(_copy)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outside, self.repeats = _here.segments, self.done
        _here.segments = (*outside, self)
        present = {layer: _Kept(layer) for layer in self.first}
        try:
            for layer, kept in self.first.items():
                kept.map(Tensor.clone).put(layer)
            with backends.under(self.backend):
                return self.function(*args, **kwargs)
        finally:
            _here.segments, self.repeats, self.done = outside, False, True
            for layer, kept in present.items():
                kept.put(layer)


def checkpoint(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """function(*args), whose inner tensors are computed again in the backward pass in place of being kept.

    As torch.utils.checkpoint.checkpoint(..., use_reentrant=False), whose keyword arguments it takes, for functions that
    call fastsnn's layers: the second run starts each of them from the state (running statistics, too) of the first, and
    leaves it as it was. Costs the memory of that state. `function` is a module or any callable; it may run one step or
    many, of any rule, in step mode "s" or "m".

    Raises ValueError for use_reentrant=True, which would cut the state out of the graph, and RuntimeError for a
    compiled function and inside of torch.compile, which recomputes by itself
    (`torch._functorch.config.activation_memory_budget`).
    """
    if kwargs.pop("use_reentrant", False):
        raise ValueError("use_reentrant=True cuts the state between segments out of the graph; leave it out")
    if torch.compiler.is_compiling() or _compiled(function):
        raise RuntimeError(
            "fastsnn.checkpoint is for eager code and does not see the state of compiled layers: give it the network "
            "itself, or let torch.compile recompute (torch._functorch.config.activation_memory_budget)"
        )
    return torch_checkpoint(Segment(function), *args, use_reentrant=False, **kwargs)


def _compiled(function: Callable[..., Any]) -> bool:
    parts = function.modules() if isinstance(function, nn.Module) else [function]
    return any(hasattr(part, "_torchdynamo_orig_callable") or hasattr(part, "_orig_mod") for part in parts)
