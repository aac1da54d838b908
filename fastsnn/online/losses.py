"""Losses of one time step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def loss(logits: Tensor, target: Tensor, steps: int, mse: float = 0.05) -> Tensor:
    """L[t] = ((1-c)*CE(o[t], y) + c*MSE(o[t], onehot(y))) / T (Xiao et al. 2022, section 5; equations/ottt.md).

    logits o[t] [N, classes, *]; target y as torch's cross_entropy takes it: class indices [N, *], or, of the logits'
    shape, the classes' shares where samples are mixed; steps T; mse is c in [0, 1]: 0.05 (CIFAR, the default), 0.001
    (DVS), 0 (ImageNet). Raises ValueError for steps < 1 or c outside [0, 1].
    """
    _check(steps, mse, "mse")
    total = (1 - mse) * _cross_entropy(logits, target)
    if mse:
        total = total + mse * F.mse_loss(logits, _shares(target, logits))
    return total / steps


def tet_loss(logits: Tensor, target: Tensor, steps: int, weight: float = 0.05, level: float = 1.0) -> Tensor:
    """TET: ((1-w)*CE(o[t], y) + w*MSE(o[t], level)) / T (Deng et al. 2022, eq. 9 to 11).

    level is the potential every output is pulled to, 1.0 as in the paper's code. Raises as `loss`.
    """
    _check(steps, weight, "weight")
    pulled = F.mse_loss(logits, torch.full_like(logits, level))
    return ((1 - weight) * _cross_entropy(logits, target) + weight * pulled) / steps


def hits(logits: Tensor, target: Tensor) -> Tensor:
    """How many predictions are right: the largest logit is that of the class, or of the one with the largest share."""
    dim = _classes(logits)
    return (logits.argmax(dim) == (target.argmax(dim) if target.is_floating_point() else target)).sum()


def predictions(target: Tensor) -> int:
    """How many predictions a target judges: one a sample, or one a position of it."""
    return target.numel() // (target.shape[_classes(target)] if target.is_floating_point() else 1)


def _classes(logits: Tensor) -> int:
    """The dimension of the classes, of logits [classes] or [N, classes, *]."""
    return min(1, logits.dim() - 1)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target.to(logits.dtype) if target.is_floating_point() else target)


def _shares(target: Tensor, logits: Tensor) -> Tensor:
    dim = _classes(logits)
    if target.is_floating_point():
        return target.to(logits.dtype)
    # F.one_hot reads values, which no graph holds
    return torch.zeros_like(logits).scatter_(dim, target.unsqueeze(dim), 1)


def _check(steps: int, share: float, name: str) -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be the number of time steps T >= 1")
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {share}; it must be in [0, 1]")
