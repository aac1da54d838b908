"""EM-PF neurons on one core."""

from __future__ import annotations

import torch
from torch import Tensor

from ...backends import register
from ...reference import empf as reference
from ...reference.empf import Norm
from ...types import state_dtype
from ..common.kernels import DTYPES, Family


class EMPFKernels(Family):
    """EM-PF kernels of one core; signatures as fastsnn.reference.empf. Sums come in several parts a channel."""

    CALLS = ("empf_",)

    def _run(self, kernel: str, like: Tensor, dtype: torch.dtype, **operands: Tensor | None) -> None:
        T, outer, channels, inner = (*[1] * (4 - like.dim()), *like.shape)
        getattr(self._core, kernel)(
            where=self._where(like),
            parts=self._parts(like),
            T=T,
            outer=outer,
            channels=channels,
            inner=inner,
            dtype=DTYPES[dtype],
            **operands,
        )

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
        given = {"x": x, "v": v, "leak": leak, "threshold": threshold}
        self._run("empf_forward", x, x.dtype, **given, spikes=spikes, v_last=last, v_seq=every)
        return spikes, every if v_seq else last

    def backward(
        self, g_s: Tensor, v_seq: Tensor | None, x: Tensor | None, v: Tensor | None, threshold: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        g_x = torch.empty_like(g_s)
        g_threshold = self._sums(g_s, threshold)
        g_leak = None if v_seq is None else torch.zeros_like(g_threshold)
        given = {"g_spikes": g_s, "v_seq": v_seq, "x": x, "v": v, "threshold": threshold}
        self._run("empf_backward", g_s, g_s.dtype, **given, g_x=g_x, g_leak=g_leak, g_threshold=g_threshold)
        return g_x, None if g_leak is None else self._total(g_leak, threshold), self._total(g_threshold, threshold)

    def potential(
        self, x: Tensor, v: Tensor | None, leak: Tensor, statistics: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        m = torch.empty_like(x, dtype=leak.dtype)
        shift = torch.zeros_like(leak, dtype=torch.float64)
        sums, squares = (self._sums(x, leak), self._sums(x, leak)) if statistics else (None, None)
        self._run("empf_potential", x, x.dtype, x=x, v=v, leak=leak, m=m, shift=shift, sums=sums, squares=squares)
        if sums is None or squares is None:
            return m, None, None
        count = x.numel() // leak.numel()
        mean = self._total(sums, leak) / count
        return m, shift + mean, (self._total(squares, leak) / count - mean * mean).clamp(min=0)

    def norm_forward(self, k: Norm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        spikes, v = torch.empty_like(k.m, dtype=dtype), torch.empty_like(k.m)
        self._run("empf_norm_forward", k.m, dtype, **k._asdict(), spikes=spikes, v_last=v)
        return spikes, v

    def norm_sums(self, k: Norm, g_s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        g_mh, g_mh_xhat = self._sums(k.m, k.mean), self._sums(k.m, k.mean)
        given = {**k._asdict(), "g_spikes": g_s, "v_last": v}
        self._run("empf_norm_sums", k.m, g_s.dtype, **given, g_mh=g_mh, g_mh_xhat=g_mh_xhat)
        return self._total(g_mh, k.mean), self._total(g_mh_xhat, k.mean)

    def norm_backward(
        self, k: Norm, g_s: Tensor, v: Tensor, v_prev: Tensor | None, pull: Tensor, pull_xhat: Tensor
    ) -> tuple[Tensor, Tensor]:
        g_x, g_leak = torch.empty_like(g_s), self._sums(k.m, k.mean)
        given = {**k._asdict(), "g_spikes": g_s, "v_last": v, "v": v_prev, "pull": pull, "pull_xhat": pull_xhat}
        self._run("empf_norm_backward", k.m, g_s.dtype, **given, g_x=g_x, g_leak=g_leak)
        return g_x, self._total(g_leak, k.mean)


register("empf", EMPFKernels, reference)
