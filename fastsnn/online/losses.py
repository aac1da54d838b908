"""Losses of one time step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def loss(logits: Tensor, target: Tensor, steps: int, mse: float = 0.05) -> Tensor:
    """L[t] = ((1-c)*CE(o[t], y) + c*MSE(o[t], onehot(y))) / T (Xiao et al. 2022, section 5; SPEC section 2).

    logits o[t] [N, classes]; target y [N], class indices; steps T; mse is c in [0, 1]: 0.05 (CIFAR, the
    default), 0.001 (DVS), 0 (ImageNet). Raises ValueError for steps < 1 or c outside [0, 1].
    """
    _check(steps, mse, "mse")
    total = (1 - mse) * F.cross_entropy(logits, target)
    if mse:
        total = total + mse * F.mse_loss(logits, F.one_hot(target, logits.shape[-1]).to(logits.dtype))
    return total / steps


def tet_loss(logits: Tensor, target: Tensor, steps: int, weight: float = 0.05, level: float = 1.0) -> Tensor:
    """TET: ((1-w)*CE(o[t], y) + w*MSE(o[t], level)) / T (Deng et al. 2022, eq. 9 to 11).

    level is the potential every output is pulled to, 1.0 as in the paper's code. Raises as `loss`.
    """
    _check(steps, weight, "weight")
    pulled = F.mse_loss(logits, torch.full_like(logits, level))
    return ((1 - weight) * F.cross_entropy(logits, target) + weight * pulled) / steps


def _check(steps: int, share: float, name: str) -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be the number of time steps T >= 1")
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {share}; it must be in [0, 1]")
