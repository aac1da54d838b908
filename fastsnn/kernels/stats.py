"""Online statistics, OSR and OTS, on one core."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import register
from ..backends.core import Core
from ..reference import osr, ots
from ..stats import Affine, Moments
from ..types import Forward, LIFParams, LIFState, slots_at, state_dtype
from .lif import LIFKernels
from .operands import DTYPES, room_of_blocks


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


def _step_moments(x: Tensor) -> Moments:
    """Room for the moments of x, per channel."""
    mean, m2 = x.new_zeros(2, x.shape[1], dtype=torch.float64)
    return Moments(mean.new_full((), x.numel() // x.shape[1]), mean, m2)


class OSRKernels:
    """OSR kernels of one core; signatures as fastsnn.reference.osr."""

    def __init__(self, core: Core) -> None:
        self.NAME, self._lif, self._core = core.name, LIFKernels(core), core.module
        self._where, self._blocks = core.where, core.blocks

    def _sizes(self, x: Tensor) -> tuple[list[int], int]:
        """parts, outer, channels, inner; and the dtype's code."""
        shape = _shape(x)
        return [_parts(shape, self._blocks), *shape], DTYPES[x.dtype]

    def _room(self, x: Tensor) -> Tensor | None:
        """For two sums of every part and channel, where the core wants it."""
        parts, _, channels, _ = self._sizes(x)[0]
        return None if self._blocks == 1 else x.new_empty((parts, 2, channels), dtype=torch.float64)

    def _call(self, kernel: str, x: Tensor, *operands: Tensor | None) -> None:
        getattr(self._core, kernel)(self._where(x), *self._sizes(x), *operands)

    def _moments(self, x: Tensor, own: Moments | None) -> tuple[Tensor | None, ...]:
        """mean, m2 and room."""
        return (None, None, None) if own is None else (own.mean, own.m2, self._room(x))

    def normalize(self, x: Tensor, affine: Affine, moments: bool) -> tuple[Tensor, Moments | None]:
        y = torch.empty_like(x)
        own = _step_moments(x) if moments else None
        self._call("osr_forward", x, x, *affine, y, *self._moments(x, own))
        return y, own

    def reduce(self, x: Tensor, g: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
        sums = mean.new_zeros(2, len(mean))
        self._call("osr_reduce", x, x, g, mean, inverse, sums, self._room(x))
        return sums

    def gradient(self, x: Tensor, g: Tensor, mean: Tensor, inverse: Tensor, factor: Tensor, means: Tensor) -> Tensor:
        g_x = torch.empty_like(x)
        self._call("osr_gradient", x, x, g, mean, inverse, factor, means, g_x)
        return g_x

    def lif_forward(
        self, p: LIFParams, x: Tensor, affine: Affine, state: LIFState, moments: bool
    ) -> tuple[Forward, Moments | None]:
        wide = state_dtype(x.dtype)
        own = _step_moments(x) if moments else None
        sums = self._moments(x, own)
        spikes, u = torch.empty_like(x), torch.empty_like(x, dtype=wide)
        slots = [torch.empty_like(u) for _ in p.places]
        before = slots_at(p.places, state)
        self._core.osr_lif_forward(
            self._lif._params(p),
            self._where(x),
            *self._sizes(x),
            any(slot is None for slot in before),
            state.is_v,
            x,
            *affine,
            *sums,
            state.potential,
            *before,
            state.keep,
            spikes,
            u,
            *slots,
        )
        return Forward(spikes, u, None, slots), own

    def lif_reduce(
        self, p: LIFParams, x: Tensor, g_s: Tensor, u: Tensor, keep: Tensor | None, mean: Tensor, inverse: Tensor
    ) -> tuple[Tensor, Tensor]:
        g_y, sums, room = torch.empty_like(x), mean.new_zeros(2, len(mean)), self._room(x)
        operands = (x, mean, inverse, sums, room, g_s, keep, u, g_y)
        self._core.osr_lif_reduce(self._lif._params(p), self._where(x), *self._sizes(x), *operands)
        return g_y, sums


class OTSKernels:
    """OTS kernels of one core; signatures as fastsnn.reference.ots."""

    def __init__(self, core: Core) -> None:
        self.NAME, self._lif, self._core = core.name, LIFKernels(core), core.module
        self._where, self._room = core.where, core.blocks > 1

    def _call(self, kernel: str, p: LIFParams, u: Tensor, dtype: torch.dtype, *operands: Tensor | None) -> None:
        run = getattr(self._core, kernel)
        run(self._lif._params(p), self._where(u), u.numel(), DTYPES[dtype], *operands)

    def charge(self, p: LIFParams, x: Tensor, v: Tensor | None) -> tuple[Tensor, Moments]:
        u = torch.empty_like(x, dtype=state_dtype(x.dtype))
        own = x.new_zeros(2, dtype=torch.float64)
        room = room_of_blocks(x, x.numel()) if self._room else None
        self._call("ots_charge", p, u, x.dtype, x, v, u, own, room)
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
