"""How the potentials of a layer are distributed over a data set, step by step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .ops.mpdr import MPDR
from .reference import mpdr as formulas


class Moments:
    """Count, mean and squared deviations of a layer's u[t] over batches, for each of T steps (Chan et al. 1983)."""

    def __init__(self, steps: int) -> None:
        self.calls = 0
        self.count = torch.zeros(steps, dtype=torch.float64)
        self.mean, self.squares = torch.zeros_like(self.count), torch.zeros_like(self.count)

    def add(self, u: Tensor) -> None:
        """One step of a batch; steps follow each other."""
        t = self.calls % len(self.count)
        mean, var = formulas.moments(u.unsqueeze(0))[0].cpu()
        before, self.count[t] = self.count[t].item(), self.count[t] + u.numel()
        share = u.numel() / self.count[t]
        delta = mean - self.mean[t]
        self.mean[t] += delta * share
        self.squares[t] += var * u.numel() + delta.square() * before * share
        self.calls += 1

    def rows(self) -> Tensor:
        """Mean and biased variance of each step, [T, 2]."""
        return torch.stack([self.mean, self.squares / self.count], 1)

    def z_score(self, threshold: float) -> list[float | None]:
        """(th - mean)/std of each step; None where it is not finite."""
        return _finite(formulas.z_score(self.rows(), threshold))

    def loss(self, mpdr: MPDR) -> list[float | None]:
        """L_M of each step; None where it is not finite."""
        return _finite(mpdr.loss(self.rows()))


def _finite(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
