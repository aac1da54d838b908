"""The online threshold stabiliser's memory (equations/ots.md)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..stats import Moments
from ..types import map_tensors
from .state import Stateful, counted


class OTSState(NamedTuple):
    """Steps so far (`counted`), and q = (th_0 - mean)/std of the first of them that had a spread; None before the first
    step."""

    steps: int | Tensor = 0
    quantile: Tensor | None = None

    def map(self, fn: Any) -> OTSState:
        """fn of every tensor."""
        return map_tensors(self, fn)


class ThresholdStabilizer(Stateful):
    """th[t] = mean + q*std of the layer's u[t], std unbiased; th[1] = th_0. Where u has no spread, th_0.

    fixed: keep a running th for each t in training (`running_threshold` [1024], NaN where no sequence was as long yet;
    momentum 0.9; steps after the 1024th share the last), and use it in evaluation: the last known one from there on,
    th_0 where there is none.
    """

    MOMENTUM = 0.9
    STEPS = 1024
    running_threshold: Tensor

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.fixed = fixed
        self.register_buffer("running_threshold", torch.full((self.STEPS,), torch.nan) if fixed else None)
        self.reset()

    @torch.no_grad()
    def forward(self, moments: Moments, start: float) -> Tensor:
        """th[t], float64 []; start is th_0."""
        self._runs()
        steps, quantile = self.state
        th_0 = torch.full_like(moments.mean, start)
        if self.fixed and not self.training:
            self.state = OTSState(counted(steps + 1, th_0))
            return self._known(steps, th_0)
        threshold, quantile = _stabilized(moments, th_0, quantile)
        self.state = OTSState(counted(steps + 1, th_0), quantile)
        if self.fixed:
            self._keep(steps, threshold)
        return threshold

    def _known(self, steps: int | Tensor, th_0: Tensor) -> Tensor:
        kept = self.running_threshold
        last = kept.isfinite().sum() - 1
        step = torch.as_tensor(steps, device=kept.device).minimum(last).clamp(min=0)
        return torch.where(last < 0, th_0, kept.index_select(0, step.view(1)).squeeze(0).double())

    def _keep(self, steps: int | Tensor, threshold: Tensor) -> None:
        kept = self.running_threshold
        step = torch.as_tensor(steps, device=kept.device).clamp(max=len(kept) - 1).view(1)
        old, new = kept.index_select(0, step), threshold.to(kept).view(1)
        kept.index_copy_(0, step, torch.where(old.isnan(), new, old + (1 - self.MOMENTUM) * (new - old)))

    def reset(self) -> None:
        """The next step is t = 1."""
        self._met()
        self.state = OTSState()

    def detach(self) -> None:
        """The state has no graph."""

    def extra_repr(self) -> str:
        return f"fixed={self.fixed}"


def _stabilized(moments: Moments, th_0: Tensor, quantile: Tensor | None) -> tuple[Tensor, Tensor]:
    """th[t] and q, NaN as long as no step had a spread."""
    mean, std = moments.mean, moments.unbiased_std
    spread = (std > 0) & std.isfinite()
    quantile = torch.full_like(mean, torch.nan) if quantile is None else quantile
    first = spread & quantile.isnan()
    later = spread & ~first
    return torch.where(later, mean + quantile * std, th_0), torch.where(first, (th_0 - mean) / std, quantile)
