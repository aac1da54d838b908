"""OSR, alone and with the LIF behind it, on one core."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...backends import register
from ...reference import osr
from ...stats import Moments, Running, Settled, Used
from ...types import Forward, LIFParams, LIFState, slots_at, state_dtype
from ..common.kernels import DTYPES, NeuronFamily

# of a call that takes no statistics
NO_STEP: dict[str, Any] = {"limit": math.inf, "own_share": 0.0, "step": 0}
NO_STEP |= dict.fromkeys(("strict", "pooled", "ends"), False)
NO_STEP |= dict.fromkeys(("statistics", "n", "n_before", "mean_before", "m2_before", "total", "share", "folds"))
NO_STEP |= dict.fromkeys(("refused_before", "refused", "workspace"))


def _shape(x: Tensor) -> tuple[int, int, int]:
    """outer, channels and inner of x, contiguous or with channels last."""
    if x.is_contiguous():
        return len(x), x.shape[1], x[0, 0].numel() if x.numel() else 0
    return x.numel() // x.shape[1], x.shape[1], 1


def _parts(shape: tuple[int, int, int], blocks: int) -> int:
    """Parts of a channel's sum, a function of the shape alone: of 4096 elements or more in a block, which takes up to
    128 channels where they are last."""
    outer, channels, inner = shape
    groups = max(1, -(-channels // 128) if inner == 1 else channels)
    return max(1, min(blocks // groups, outer * channels * inner // (4096 * groups)))


class OSRKernels(NeuronFamily):
    """OSR kernels of one core; signatures as fastsnn.reference.osr."""

    CALLS = ("osr_",)

    def _sizes(self, x: Tensor) -> dict[str, Any]:
        shape = _shape(x)
        outer, channels, inner = shape
        sizes = {"parts": _parts(shape, self._blocks), "outer": outer, "channels": channels, "inner": inner}
        return {"where": self._where(x), **sizes, "dtype": DTYPES[x.dtype]}

    def _workspace(self, x: Tensor) -> Tensor | None:
        """For two sums of every part and channel, where the core wants it."""
        if self._blocks == 1:
            return None
        return x.new_empty((_parts(_shape(x), self._blocks), 2, x.shape[1]), dtype=torch.float64)

    def _norm(self, x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> dict[str, Any]:
        """What a normalisation takes: every forward begins with it."""
        mean, variance, eps, *_ = running
        learned = {"learned": DTYPES[weight.dtype], "weight": weight.contiguous(), "bias": bias.contiguous()}
        kept = {"running": DTYPES[mean.dtype], "running_mean": mean, "running_var": variance}
        return {**self._sizes(x), "eps": eps, "x": x, **learned, **kept}

    def _step(self, x: Tensor, running: Running) -> tuple[dict[str, Any], Settled]:
        """What becomes of a training step's moments: what its call takes, and that."""
        *_, max_ratio, strict, sequence = running
        channels = x.shape[1]
        used = Used(x.new_empty(6, channels, dtype=torch.float64), x.new_empty((), dtype=torch.float64))
        limit = math.inf if max_ratio is None else max_ratio * max_ratio
        given = {**NO_STEP, "limit": limit, "strict": strict, "workspace": self._workspace(x), **used._asdict()}
        if sequence is None:
            return given, Settled(used)
        step, before, pooled, ends, share, folds, refused = sequence
        taken = x.new_empty(2 * channels + 1, dtype=torch.float64)
        total = Moments(taken[0], taken[1 : channels + 1], taken[channels + 1 :])
        # where the CPU refuses a step, nothing is kept of it
        noted = torch.empty_like(used.n) if strict and x.device.type != "cpu" else None
        if before is not None:
            given |= {f"{name}_before": moment for name, moment in before._asdict().items()}
        given |= {"share": share} if isinstance(share, Tensor) else {"own_share": share}
        given |= {"step": step, "pooled": pooled, "ends": ends, "total": taken, "folds": folds if ends else None}
        given |= {"refused_before": refused, "refused": noted}
        return given, Settled(used, total, refused if noted is None else noted)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> Tensor:
        y = torch.empty_like(x)
        self._core.osr_forward(**self._norm(x, weight, bias, running), **NO_STEP, y=y)
        return y

    def normalize(self, x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> tuple[Tensor, Settled]:
        y = torch.empty_like(x)
        step, settled = self._step(x, running)
        self._core.osr_forward(**self._norm(x, weight, bias, running), **step, y=y)
        return y, settled

    def lif_forward(
        self, p: LIFParams, x: Tensor, weight: Tensor, bias: Tensor, running: Running, state: LIFState
    ) -> tuple[Forward, Settled]:
        step, settled = self._step(x, running)
        spikes, u = torch.empty_like(x), torch.empty_like(x, dtype=state_dtype(x.dtype))
        slots = tuple(torch.empty_like(u) for _ in p.places)
        before = tuple(slots_at(p.places, state))
        self._core.osr_lif_forward(
            p=self._params(p),
            **self._norm(x, weight, bias, running),
            **step,
            first=any(slot is None for slot in before),
            potential_is_v=state.is_v,
            potential=state.potential,
            slots=before,
            keep=state.keep,
            spikes=spikes,
            u=u,
            slots_out=slots,
        )
        return Forward(spikes, u, None, slots), settled

    def charge(
        self, p: LIFParams, x: Tensor, weight: Tensor, bias: Tensor, running: Running, v: Tensor | None
    ) -> tuple[tuple[Tensor, Moments], Settled]:
        step, settled = self._step(x, running)
        u, own = torch.empty_like(x, dtype=state_dtype(x.dtype)), x.new_empty(2, dtype=torch.float64)
        charged = {"v": v, "u": u, "u_moments": own, "u_workspace": self._workspace(x)}
        self._core.osr_charge(p=self._params(p), **self._norm(x, weight, bias, running), **step, **charged)
        return (u, Moments(own.new_full((), x.numel()), *own)), settled

    def _reduced(self, x: Tensor, used: Used, dtype: torch.dtype) -> tuple[dict[str, Any], list[Tensor]]:
        """What a gradient's sums take, and what becomes of them."""
        means = torch.empty_like(used.statistics[:2])
        weight, bias = (x.new_empty(x.shape[1], dtype=dtype) for _ in range(2))
        given = {**self._sizes(x), "learned": DTYPES[dtype], "x": x, **used._asdict(), "workspace": self._workspace(x)}
        return {**given, "means": means, "g_weight": weight, "g_bias": bias}, [means, weight, bias]

    def reduce(self, x: Tensor, g: Tensor, used: Used, dtype: torch.dtype) -> Any:
        given, reduced = self._reduced(x, used, dtype)
        self._core.osr_reduce(**given, g=g)
        return reduced

    def lif_reduce(
        self,
        p: LIFParams,
        x: Tensor,
        g_s: Tensor,
        u: Tensor,
        keep: Tensor | None,
        used: Used,
        dtype: torch.dtype,
        threshold: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        g_y = torch.empty_like(x)
        given, reduced = self._reduced(x, used, dtype)
        neuron = {"g_spikes": g_s, "keep": keep, "u": u, "threshold": threshold, "g_y": g_y}
        self._core.osr_lif_reduce(p=self._params(p), **given, **neuron)
        return g_y, reduced

    def gradient(self, x: Tensor, g: Tensor, used: Used, means: Tensor) -> Tensor:
        g_x = torch.empty_like(x)
        self._core.osr_gradient(**self._sizes(x), x=x, g=g, statistics=used.statistics, means=means, g_x=g_x)
        return g_x


register("osr", OSRKernels, osr)
