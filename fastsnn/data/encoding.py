"""Static input as T steps."""

from __future__ import annotations

import torch
from torch import Tensor


def direct(x: Tensor, steps: int) -> Tensor:
    """The same input at every step: [N, *] -> [T, N, *], a view. Raises ValueError for steps < 1."""
    _check(steps)
    return x.expand(steps, *x.shape)


def poisson(x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Bernoulli spikes whose rate is the intensity: [N, *] in [0, 1] -> [T, N, *] of 0 and 1, x's dtype.

    Raises ValueError for steps < 1 or intensities outside [0, 1] (NaN included).
    """
    _check(steps)
    if x.numel() and not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError(f"x ranges from {x.min():g} to {x.max():g}; intensities must be in [0, 1]: scale x first")
    noise = torch.rand((steps, *x.shape), generator=generator, dtype=torch.float32, device=x.device)
    return (noise < x).to(x.dtype)


def _check(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be the number of time steps T >= 1")
