"""The online threshold stabiliser's memory (SPEC section 6)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ops.stats import Moments
from ..ops.types import map_tensors
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

    fixed: keep a running th for each t in training (`running_threshold`, a buffer that grows to the longest sequence;
    momentum 0.9), and use it in evaluation: the last one from there on, th_0 where there is none. The buffer cannot
    grow inside a graph of torch.compile: training there raises.
    """

    MOMENTUM = 0.9
    running_threshold: Tensor

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.fixed = fixed
        self.register_buffer("running_threshold", torch.zeros(0) if fixed else None)
        self.reset()

    @torch.no_grad()
    def forward(self, moments: Moments, start: float) -> Tensor:
        """th[t], float64 []; start is th_0."""
        self._runs()
        steps, quantile = self.state
        th_0 = torch.full_like(moments.mean, start)
        if self.fixed and not self.training:
            self.state = OTSState(counted(steps + 1, th_0))
            return self._known(steps) if len(self.running_threshold) else th_0
        if self.fixed and torch.compiler.is_compiling():
            raise RuntimeError(
                "fixed_threshold=True keeps a threshold for every step in a buffer that grows, which a graph cannot: "
                "train outside of torch.compile; evaluation can be compiled"
            )
        threshold, quantile = _stabilized(moments, th_0, quantile)
        self.state = OTSState(counted(steps + 1, th_0), quantile)
        if self.fixed:
            self._keep(int(steps), threshold)
        return threshold

    def _known(self, steps: int | Tensor) -> Tensor:
        last = len(self.running_threshold) - 1
        if isinstance(steps, Tensor):
            return self.running_threshold.index_select(0, steps.clamp(max=last).view(1)).squeeze(0).double()
        return self.running_threshold[min(steps, last)].double()

    def _keep(self, step: int, threshold: Tensor) -> None:
        new, kept = threshold.to(self.running_threshold), self.running_threshold
        if step < len(kept):
            kept[step] += (1 - self.MOMENTUM) * (new - kept[step])
        else:
            self.running_threshold = torch.cat([kept, new.view(1)])

    def reset(self) -> None:
        """The next step is t = 1."""
        self._met()
        self.state = OTSState()

    def detach(self) -> None:
        """The state has no graph."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        saved = state_dict.get(prefix + "running_threshold")
        if self.fixed and saved is not None:
            self.running_threshold = self.running_threshold.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

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
