"""OTS on one core."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...backends import register
from ...reference import ots
from ...stats import Moments
from ...types import LIFParams, state_dtype
from ..common.kernels import DTYPES, NeuronFamily


class OTSKernels(NeuronFamily):
    """OTS kernels of one core; signatures as fastsnn.reference.ots."""

    CALLS = ("ots_",)

    def _neuron(self, p: LIFParams, u: Tensor, dtype: torch.dtype) -> dict[str, Any]:
        return {"p": self._params(p), "where": self._where(u), "n": u.numel(), "dtype": DTYPES[dtype], "u": u}

    def charge(self, p: LIFParams, x: Tensor, v: Tensor | None) -> tuple[Tensor, Moments]:
        u = torch.empty_like(x, dtype=state_dtype(x.dtype))
        own = x.new_zeros(2, dtype=torch.float64)
        workspace = self._sums_of_blocks(x, x.numel())
        self._core.ots_charge(**self._neuron(p, u, x.dtype), x=x, v=v, moments=own, workspace=workspace)
        return u, Moments(own.new_full((), x.numel()), *own)

    def fire(
        self, p: LIFParams, u: Tensor, threshold: Tensor, trace: Tensor | None, keep: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        spikes, v = torch.empty_like(u, dtype=dtype), torch.empty_like(u)
        after = torch.empty_like(u) if p.traced else None
        given = {**self._neuron(p, u, dtype), "threshold": threshold, "trace": trace, "keep": keep}
        self._core.ots_fire(**given, spikes=spikes, v=v, trace_out=after)
        return spikes, v, after

    def backward(
        self, p: LIFParams, u: Tensor, threshold: Tensor, keep: Tensor | None, g_s: Tensor, dtype: torch.dtype
    ) -> Tensor:
        g_x = torch.empty_like(u, dtype=dtype)
        neuron = self._neuron(p, u, dtype)
        self._core.ots_backward(**neuron, threshold=threshold, g_spikes=g_s, keep=keep, g_x=g_x)
        return g_x


register("ots", OTSKernels, ots)
