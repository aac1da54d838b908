"""The kernels as operators of torch.library (namespace `fastsnn`), for torch.compile and torch.export.

Eager calls go from the families' autograd.Functions to the kernels and do not come here. Operators take tensors in any
layout, choose the backend when they run, and return tensors laid out as their fake implementations say. An output that
a rule does not have is an empty tensor.
"""

from __future__ import annotations

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


def define(name: str, schema: str, fake: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the operator `fastsnn::name` that runs the decorated function."""

    def register(run: Callable[..., Any]) -> Any:
        torch.library.define(f"fastsnn::{name}", schema)
        torch.library.impl(f"fastsnn::{name}", "default", run)
        torch.library.register_fake(f"fastsnn::{name}", fake)
        return getattr(torch.ops.fastsnn, name).default

    return register


def contiguous_like(x: Tensor) -> Tensor:
    """A contiguous tensor of x's shape and dtype."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def empty_like(x: Tensor, model: Tensor | None) -> Tensor:
    """A tensor of x's state dtype, laid out as model; empty for None."""
    dtype = state_dtype(x.dtype)
    return x.new_empty(0, dtype=dtype) if model is None else torch.empty_like(model, dtype=dtype)
