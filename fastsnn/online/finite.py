"""A step's loss must be finite before an update with it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..ops.common.library import define


def raise_unless_finite(value: float, t: int, steps: int) -> None:
    """Raises FloatingPointError for a loss that is not finite at step t, counted from 0."""
    if not math.isfinite(value):
        raise FloatingPointError(
            f"loss is {value} at step {t + 1} of {steps}; no update was made with it. Look for NaN or infinity in the "
            "input and the weights, or lower the learning rate"
        )


@define("finite_loss", "(Tensor loss, int step, int steps) -> Tensor", lambda k: torch.empty_like(k.loss))
def finite_loss(k: Any) -> Tensor:
    """The loss of a step in a graph, as `raise_unless_finite` lets it pass."""
    raise_unless_finite(float(k.loss), k.step, k.steps)
    return k.loss.clone()
