"""Shared by the families' autograd.Functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """`once_differentiable`, whose cost is paid only where a second derivative could be asked for."""
    guarded = once_differentiable(backward)

    def choose(ctx: Any, *grads: Any) -> Any:
        return guarded(ctx, *grads) if torch.is_grad_enabled() else backward(ctx, *grads)

    return choose
