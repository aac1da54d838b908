"""STGR's step around SGD with momentum as an operator."""

from __future__ import annotations

from typing import Any

from ... import backends
from ..common.library import define, named

NUMBERS = ("first", "nesterov", "lam", "gam", "rho", "lr", "momentum", "undamped", "decay")


@define(
    "stgr_sgd",
    "(Tensor grad, Tensor(a!) weight, Tensor(b!) average, Tensor(c!) previous, Tensor(d!) momentum_buffer, bool first, "
    "bool nesterov, float lam, float gam, float rho, float lr, float momentum, float undamped, float decay) -> ()",
    lambda k: None,
)
def stgr_sgd(k: Any) -> None:
    """A backend's step."""
    tensors = (k.grad, k.average, k.previous, k.momentum_buffer)
    backends.select("stgr", k.weight).sgd(k.weight, tensors, **named(k, NUMBERS))
