"""The kernels as operators of torch.library (namespace `fastsnn`), for torch.compile and torch.export.

Eager calls go from the families' autograd.Functions to the kernels and do not come here. Operators take tensors in any
layout, choose the backend when they run, and return tensors laid out as their fake implementations say. An output that
a rule does not have is an empty tensor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..types import state_dtype

NAME = "torch.compile"

STATE = "Tensor? potential, Tensor? trace, Tensor? ratio, Tensor? keep, bool is_v"
PARAMS = (  # LIFParams.arguments
    "float tau, bool decay_input, float v_threshold, float? v_reset, str shape, float height, float slope, "
    "bool detach_reset, str rule"
)


# torch.ops outlives a purge of sys.modules: operators are registered once, and call what was imported last
_latest: dict[str, Any] = vars(torch.ops.fastsnn).setdefault("_latest", {})


def _through(key: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    _latest[key] = fn
    return lambda *args, **kwargs: _latest[key](*args, **kwargs)


def _given(name: str, schema: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """function, which raises TypeError where an argument must be a tensor and is None: torch lets that pass."""
    arguments = enumerate(torch._C.parse_schema(f"{name}{schema}").arguments)
    needed = [(at, argument.name) for at, argument in arguments if argument.type.kind() == "TensorType"]

    @functools.wraps(function)
    def checked(*given: Any) -> Any:
        for at, argument in needed:
            if given[at] is None:
                raise TypeError(f"{name}: {argument} is None; it must be a tensor")
        return function(*given)

    return checked


def define(name: str, schema: str, fake: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the operator `fastsnn::name` that runs the decorated function.

    Raises ImportError where another version of fastsnn has defined it in this process.
    """

    def register(run: Callable[..., Any]) -> Any:
        known = _latest.setdefault(f"{name} schema", schema)
        if known != schema:
            raise ImportError(
                f"operator fastsnn::{name} is defined with {known}, by another version of fastsnn that this process "
                "imported before: start Python anew"
            )
        new = name not in _latest
        calls, fakes = (_through(key, _given(name, schema, fn)) for key, fn in ((name, run), (f"{name} fake", fake)))
        if new:
            torch.library.define(f"fastsnn::{name}", schema)
            torch.library.impl(f"fastsnn::{name}", "default", calls)
            torch.library.register_fake(f"fastsnn::{name}", fakes)
        return getattr(torch.ops.fastsnn, name).default

    return register


def differentiate(name: str, gradient: Callable[..., Any], keep: Callable[..., Any]) -> None:
    """The gradient of `fastsnn::name`, from what `keep` put into its context."""
    new = f"{name} gradient" not in _latest
    gradient, keep = _through(f"{name} gradient", gradient), _through(f"{name} context", keep)
    if new:
        torch.library.register_autograd(f"fastsnn::{name}", gradient, setup_context=keep)


def contiguous_like(x: Tensor) -> Tensor:
    """A contiguous tensor of x's shape and dtype."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def empty_like(x: Tensor, model: Tensor | None) -> Tensor:
    """A tensor of x's state dtype, laid out as model; empty for None."""
    dtype = state_dtype(x.dtype)
    return x.new_empty(0, dtype=dtype) if model is None else torch.empty_like(model, dtype=dtype)
