"""How the potentials of a layer are distributed over a data set, step by step."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..nn import LIF, plain
from ..ops.mpdr import MPDR
from ..reference import lif, stats
from ..reference import mpdr as formulas
from ..stats import Moments, merge
from ..types import state_dtype


class Potentials(NamedTuple):
    """Values of each layer's potential, [T, n]; kind: which potential. threshold: of all layers and steps, or None."""

    layers: dict[str, Tensor]
    kind: str
    threshold: float | None


def charged(neuron: LIF, x: Tensor) -> Tensor:
    """u[t] of the step that `neuron` would do with the input x."""
    x = plain(x)
    x = x.to(state_dtype(x.dtype))
    return lif.step(neuron._params, x, neuron.state).u


class Distribution:
    """Moments of a layer's u[t] over batches, for each of T steps."""

    def __init__(self, steps: int) -> None:
        self.calls = 0
        self.moments: list[Moments | None] = [None] * steps
        self.above: list[Any] = [0] * steps

    def add(self, u: Tensor, threshold: float | None = None) -> None:
        """One step of a batch; steps follow each other. threshold: what `above_threshold` counts."""
        t, new = self.calls % len(self.moments), stats.whole(u)
        if threshold is not None:
            self.above[t] = self.above[t] + (u >= threshold).sum()
        before = self.moments[t]
        self.moments[t] = new if before is None else merge(before, new)
        self.calls += 1

    def rows(self) -> Tensor:
        """Mean and biased variance of each step, [T, 2]."""
        seen = [moments for moments in self.moments if moments is not None]
        return torch.stack([torch.stack([moments.mean, moments.variance]) for moments in seen]).cpu()

    def above_threshold(self) -> list[float]:
        """Share of neurons with u >= threshold at each step (RPTT, figure 8)."""
        pairs = zip(self.above, self.moments, strict=True)
        return [float(above / moments.n) for above, moments in pairs if moments is not None]

    def z_score(self, threshold: float) -> list[float | None]:
        """(th - mean)/std of each step; None where it is not finite."""
        return _finite(formulas.z_score(self.rows(), threshold))

    def loss(self, mpdr: MPDR) -> list[float | None]:
        """L_M of each step; None where it is not finite."""
        return _finite(mpdr.loss(self.rows()))


def _finite(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
