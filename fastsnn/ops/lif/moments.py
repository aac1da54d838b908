"""The moments of u that MPDR's forward takes and its backward needs."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def empty_moments(x: Tensor, sequence: bool) -> Tensor:
    """Memory for mean and biased variance of u of each step, float64 [T, 2]: NaN where there are no elements."""
    moments = torch.empty(len(x) if sequence else 1, 2, dtype=torch.float64, device=x.device)
    return moments.fill_(math.nan) if x.numel() == 0 else moments
