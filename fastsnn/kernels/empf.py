"""EM-PF neurons on one core."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backends import register
from ..backends.core import Core
from ..reference import empf as reference
from ..reference.empf import Norm
from ..types import state_dtype
from .operands import DTYPES

_SHAPE = "where, parts: int, T: int, outer: int, channels: int, inner: int, dtype: dtype"
_NORM = (
    f"{_SHAPE}, m: state, mean: state, inverse: state, alpha: state, beta: state, gamma: state, bias: state, "
    "threshold: state"
)
SIGNATURES = {
    "empf_forward": (
        f"{_SHAPE}, x: input, v: state?, leak: state?, threshold: state, spikes: >input, v_last: >state?, "
        "v_seq: >state?"
    ),
    "empf_backward": (
        f"{_SHAPE}, g_spikes: input, v_seq: state?, x: input?, v: state?, threshold: state, g_x: >input, "
        "g_leak: >float64?, g_threshold: >float64"
    ),
    "empf_potential": (
        f"{_SHAPE}, x: input, v: state?, leak: state, m: >state, shift: >float64, sums: >float64?, squares: >float64?"
    ),
    "empf_norm_forward": f"{_NORM}, spikes: >input, v_last: >state",
    "empf_norm_sums": f"{_NORM}, g_spikes: input, v_last: state, g_mh: >float64, g_mh_xhat: >float64",
    "empf_norm_backward": (
        f"{_NORM}, g_spikes: input, v_last: state, v: state?, pull: state, pull_xhat: state, g_x: >input, "
        "g_leak: >float64"
    ),
}


class EMPFKernels:
    """EM-PF kernels of one core; signatures as fastsnn.reference.empf. Sums come in several parts a channel."""

    def __init__(self, core: Core) -> None:
        self.NAME, self._core = core.name, core.checked(SIGNATURES)
        self._where, self._blocks = core.where, core.blocks

    def _run(self, kernel: str, x: Tensor, dtype: torch.dtype, *operands: Any) -> None:
        sizes = [self._parts(x), *[1] * (4 - x.dim()), *x.shape]
        getattr(self._core, kernel)(self._where(x), *sizes, DTYPES[dtype], *operands)

    def _parts(self, x: Tensor) -> int:
        """Parts of a channel's sum, a function of the shape alone: of 1024 neurons or more."""
        outer, channels, inner = x.shape[-3:]
        return max(1, min(self._blocks // max(channels, 1), outer * inner // 1024))

    def _sums(self, x: Tensor, like: Tensor) -> Tensor:
        """Memory for those of each part, or for one part as `like`."""
        parts = self._parts(x)
        return like.new_zeros((parts, *like.shape) if parts > 1 else like.shape, dtype=torch.float64)

    @staticmethod
    def _total(sums: Tensor, like: Tensor) -> Tensor:
        return sums.sum(0) if sums.dim() > like.dim() else sums

    def forward(
        self, x: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, v_seq: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        spikes, last, every = torch.empty_like(x), None, None
        if leak is not None:
            after = torch.empty_like(x if v_seq else x[0], dtype=state_dtype(x.dtype))
            last, every = (None, after) if v_seq else (after, None)
        self._run("empf_forward", x, x.dtype, x, v, leak, threshold, spikes, last, every)
        return spikes, every if v_seq else last

    def backward(
        self, g_s: Tensor, v_seq: Tensor | None, x: Tensor | None, v: Tensor | None, threshold: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        g_x = torch.empty_like(g_s)
        g_threshold = self._sums(g_s, threshold)
        g_leak = None if v_seq is None else torch.zeros_like(g_threshold)
        self._run("empf_backward", g_s, g_s.dtype, g_s, v_seq, x, v, threshold, g_x, g_leak, g_threshold)
        return g_x, None if g_leak is None else self._total(g_leak, threshold), self._total(g_threshold, threshold)

    def potential(
        self, x: Tensor, v: Tensor | None, leak: Tensor, statistics: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        m = torch.empty_like(x, dtype=leak.dtype)
        shift = torch.zeros_like(leak, dtype=torch.float64)
        sums, squares = (self._sums(x, leak), self._sums(x, leak)) if statistics else (None, None)
        self._run("empf_potential", x, x.dtype, x, v, leak, m, shift, sums, squares)
        if sums is None or squares is None:
            return m, None, None
        count = x.numel() // leak.numel()
        mean = self._total(sums, leak) / count
        return m, shift + mean, (self._total(squares, leak) / count - mean * mean).clamp(min=0)

    def norm_forward(self, k: Norm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        spikes, v = torch.empty_like(k.m, dtype=dtype), torch.empty_like(k.m)
        self._run("empf_norm_forward", k.m, dtype, *k, spikes, v)
        return spikes, v

    def norm_sums(self, k: Norm, g_s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        g_mh, g_mh_xhat = self._sums(k.m, k.mean), self._sums(k.m, k.mean)
        self._run("empf_norm_sums", k.m, g_s.dtype, *k, g_s, v, g_mh, g_mh_xhat)
        return self._total(g_mh, k.mean), self._total(g_mh_xhat, k.mean)

    def norm_backward(
        self, k: Norm, g_s: Tensor, v: Tensor, v_prev: Tensor | None, pull: Tensor, pull_xhat: Tensor
    ) -> tuple[Tensor, Tensor]:
        g_x, g_leak = torch.empty_like(g_s), self._sums(k.m, k.mean)
        self._run("empf_norm_backward", k.m, g_s.dtype, *k, g_s, v, v_prev, pull, pull_xhat, g_x, g_leak)
        return g_x, self._total(g_leak, k.mean)


register("empf", EMPFKernels, reference)
