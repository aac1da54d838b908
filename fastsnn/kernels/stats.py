"""Online statistics, OSR and OTS, on one core."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..backends import register
from ..backends.core import Core
from ..reference import osr, ots
from ..stats import Moments, Running, Settled, Used
from ..types import Forward, LIFParams, LIFState, slots_at, state_dtype
from .lif import LIFKernels
from .operands import DTYPES, workspace_of_blocks

_SIZES = "where, parts: int, outer: int, channels: int, inner: int, dtype: dtype"
_STEP_NUMBERS = (
    f"{_SIZES}, learned: dtype, running: dtype, eps: float, limit: float, strict: bool, pooled: bool, ends: bool, "
    "own_share: float, step: int"
)
_STEP = (
    "x: input, weight: own, bias: own, running_mean: >own, running_var: >own, statistics: >float64?, n: >float64?, "
    "n_before: float64?, mean_before: float64?, m2_before: float64?, total: >float64?, share: float64?, "
    "folds: >int64?, refused_before: float64?, refused: >float64?, workspace: >float64?"
)
_REDUCE = (
    f"{_SIZES}, learned: dtype, x: input, statistics: float64, n: float64, means: >float64, g_weight: >own, "
    "g_bias: >own, workspace: >float64?"
)
OSR_SIGNATURES = {
    "osr_forward": f"{_STEP_NUMBERS}, {_STEP}, y: >input",
    "osr_lif_forward": (
        f"p, {_STEP_NUMBERS}, first: bool, potential_is_v: bool, {_STEP}, potential: state?, *slots: state?, "
        "keep: state?, spikes: >input, u: >state, *slots_out: >state?"
    ),
    "osr_charge": (f"p, {_STEP_NUMBERS}, {_STEP}, v: state?, u: >state, u_moments: >float64, u_workspace: >float64?"),
    "osr_reduce": f"{_REDUCE}, g: input",
    "osr_lif_reduce": (f"p, {_REDUCE}, g_spikes: input, keep: state?, u: state, threshold: float64?, g_y: >input"),
    "osr_gradient": f"{_SIZES}, x: input, g: input, statistics: float64, means: float64, g_x: >input",
}
OTS_SIGNATURES = {
    "ots_charge": (
        "p, where, n: int, dtype: dtype, x: input, v: state?, u: >state, moments: >float64, workspace: >float64?"
    ),
    "ots_fire": (
        "p, where, n: int, dtype: dtype, threshold: float64, u: state, trace: state?, keep: state?, spikes: >input, "
        "v: >state, trace_out: >state?"
    ),
    "ots_backward": (
        "p, where, n: int, dtype: dtype, threshold: float64, u: state, g_spikes: input, keep: state?, g_x: >input"
    ),
}


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


class OSRKernels:
    """OSR kernels of one core; signatures as fastsnn.reference.osr."""

    def __init__(self, core: Core) -> None:
        self.NAME, self._lif, self._core = core.name, LIFKernels(core), core.checked(OSR_SIGNATURES)
        self._where, self._blocks = core.where, core.blocks

    def _sizes(self, x: Tensor) -> list[int]:
        """parts, outer, channels, inner."""
        shape = _shape(x)
        return [_parts(shape, self._blocks), *shape]

    def _workspace(self, x: Tensor) -> Tensor | None:
        """For two sums of every part and channel, where the core wants it."""
        parts, _, channels, _ = self._sizes(x)
        return None if self._blocks == 1 else x.new_empty((parts, 2, channels), dtype=torch.float64)

    def _norm(self, x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> tuple[list[Any], list[Any]]:
        """Numbers and operands of a normalisation: what every forward begins with."""
        mean, variance, eps, *_ = running
        types = [DTYPES[tensor.dtype] for tensor in (x, weight, mean)]
        return [*self._sizes(x), *types, eps], [x, weight.contiguous(), bias.contiguous(), mean, variance]

    def _step(self, x: Tensor, running: Running) -> tuple[list[Any], list[Any], Settled]:
        """Numbers and operands of what becomes of a training step's moments, and that."""
        *_, max_ratio, strict, sequence = running
        channels = x.shape[1]
        used = Used(x.new_empty(6, channels, dtype=torch.float64), x.new_empty((), dtype=torch.float64))
        limit = math.inf if max_ratio is None else max_ratio * max_ratio
        if sequence is None:
            return [limit, strict, False, False, 0.0, 0], [*used, *[None] * 8, self._workspace(x)], Settled(used)
        step, before, pooled, ends, share, folds, refused = sequence
        taken = x.new_empty(2 * channels + 1, dtype=torch.float64)
        total = Moments(taken[0], taken[1 : channels + 1], taken[channels + 1 :])
        # where the CPU refuses a step, nothing is kept of it
        noted = torch.empty_like(used.n) if strict and x.device.type != "cpu" else None
        own, given = (0.0, share) if isinstance(share, Tensor) else (share, None)
        numbers = [limit, strict, pooled, ends, own, step]
        earlier = before or [None] * 3
        folded = [given, folds if ends else None]
        operands = [*used, *earlier, taken, *folded, refused, noted, self._workspace(x)]
        return numbers, operands, Settled(used, total, refused if noted is None else noted)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> Tensor:
        y = torch.empty_like(x)
        numbers, operands = self._norm(x, weight, bias, running)
        nothing = [math.inf, False, False, False, 0.0, 0]
        self._core.osr_forward(self._where(x), *numbers, *nothing, *operands, *[None] * 11, y)
        return y

    def normalize(self, x: Tensor, weight: Tensor, bias: Tensor, running: Running) -> tuple[Tensor, Settled]:
        y = torch.empty_like(x)
        numbers, operands = self._norm(x, weight, bias, running)
        more, statistics, settled = self._step(x, running)
        self._core.osr_forward(self._where(x), *numbers, *more, *operands, *statistics, y)
        return y, settled

    def lif_forward(
        self, p: LIFParams, x: Tensor, weight: Tensor, bias: Tensor, running: Running, state: LIFState
    ) -> tuple[Forward, Settled]:
        numbers, operands = self._norm(x, weight, bias, running)
        more, statistics, settled = self._step(x, running)
        spikes, u = torch.empty_like(x), torch.empty_like(x, dtype=state_dtype(x.dtype))
        slots = [torch.empty_like(u) for _ in p.places]
        before = slots_at(p.places, state)
        self._core.osr_lif_forward(
            self._lif._params(p),
            self._where(x),
            *numbers,
            *more,
            any(slot is None for slot in before),
            state.is_v,
            *operands,
            *statistics,
            state.potential,
            *before,
            state.keep,
            spikes,
            u,
            *slots,
        )
        return Forward(spikes, u, None, slots), settled

    def charge(
        self, p: LIFParams, x: Tensor, weight: Tensor, bias: Tensor, running: Running, v: Tensor | None
    ) -> tuple[tuple[Tensor, Moments], Settled]:
        numbers, operands = self._norm(x, weight, bias, running)
        more, statistics, settled = self._step(x, running)
        u, own = torch.empty_like(x, dtype=state_dtype(x.dtype)), x.new_empty(2, dtype=torch.float64)
        charged = v, u, own, self._workspace(x)
        self._core.osr_charge(self._lif._params(p), self._where(x), *numbers, *more, *operands, *statistics, *charged)
        return (u, Moments(own.new_full((), x.numel()), *own)), settled

    def _reduced(self, x: Tensor, used: Used, dtype: torch.dtype) -> tuple[list[Any], list[Any], list[Tensor]]:
        """Numbers and operands of a gradient's sums, and what becomes of them."""
        means = torch.empty_like(used.statistics[:2])
        learned = [x.new_empty(x.shape[1], dtype=dtype) for _ in range(2)]
        numbers = [*self._sizes(x), DTYPES[x.dtype], DTYPES[dtype]]
        return numbers, [x, *used, means, *learned, self._workspace(x)], [means, *learned]

    def reduce(self, x: Tensor, g: Tensor, used: Used, dtype: torch.dtype) -> Any:
        numbers, operands, reduced = self._reduced(x, used, dtype)
        self._core.osr_reduce(self._where(x), *numbers, *operands, g)
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
        numbers, operands, reduced = self._reduced(x, used, dtype)
        neuron = g_s, keep, u, threshold, g_y
        self._core.osr_lif_reduce(self._lif._params(p), self._where(x), *numbers, *operands, *neuron)
        return g_y, reduced

    def gradient(self, x: Tensor, g: Tensor, used: Used, means: Tensor) -> Tensor:
        g_x = torch.empty_like(x)
        self._core.osr_gradient(self._where(x), *self._sizes(x), DTYPES[x.dtype], x, g, used.statistics, means, g_x)
        return g_x


class OTSKernels:
    """OTS kernels of one core; signatures as fastsnn.reference.ots."""

    def __init__(self, core: Core) -> None:
        self.NAME, self._lif, self._core = core.name, LIFKernels(core), core.checked(OTS_SIGNATURES)
        self._where, self._workspace = core.where, core.blocks > 1

    def _call(self, kernel: str, p: LIFParams, u: Tensor, dtype: torch.dtype, *operands: Tensor | None) -> None:
        run = getattr(self._core, kernel)
        run(self._lif._params(p), self._where(u), u.numel(), DTYPES[dtype], *operands)

    def charge(self, p: LIFParams, x: Tensor, v: Tensor | None) -> tuple[Tensor, Moments]:
        u = torch.empty_like(x, dtype=state_dtype(x.dtype))
        own = x.new_zeros(2, dtype=torch.float64)
        workspace = workspace_of_blocks(x, x.numel()) if self._workspace else None
        self._call("ots_charge", p, u, x.dtype, x, v, u, own, workspace)
        return u, Moments(own.new_full((), x.numel()), *own)

    def fire(
        self, p: LIFParams, u: Tensor, threshold: Tensor, trace: Tensor | None, keep: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        spikes, v = torch.empty_like(u, dtype=dtype), torch.empty_like(u)
        after = torch.empty_like(u) if p.traced else None
        self._call("ots_fire", p, u, dtype, threshold, u, trace, keep, spikes, v, after)
        return spikes, v, after

    def backward(
        self, p: LIFParams, u: Tensor, threshold: Tensor, keep: Tensor | None, g_s: Tensor, dtype: torch.dtype
    ) -> Tensor:
        g_x = torch.empty_like(u, dtype=dtype)
        self._call("ots_backward", p, u, dtype, threshold, u, g_s, keep, g_x)
        return g_x


register("osr", OSRKernels, osr)
register("ots", OTSKernels, ots)
