"""EM-PF kernels of a native core as backend: allocates outputs, passes addresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..ops.types import state_dtype
from ..reference.empf import Norm
from .native import DTYPES, Give, _address


def _sizes(x: Tensor) -> Sequence[int]:
    """T, outer, C, inner."""
    return [1] * (4 - x.dim()) + [*x.shape]


class EMPFKernels:
    """EM-PF kernels of one core; signatures as fastsnn.reference.empf."""

    def __init__(self, name: str, core: Any, where: Callable[[Tensor], Any], give: Give = _address) -> None:
        self.NAME, self._core, self._where, self._give = name, core, where, give

    def _run(self, kernel: str, x: Tensor, dtype: torch.dtype, *operands: Any) -> None:
        getattr(self._core, kernel)(self._where(x), _sizes(x), DTYPES[dtype], *operands)

    def _operands(self, *tensors: Tensor | None) -> list[Any]:
        return [self._give(tensor) for tensor in tensors]

    def forward(
        self, x: Tensor, v: Tensor | None, leak: Tensor | None, threshold: Tensor, v_seq: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        spikes, last, every = torch.empty_like(x), None, None
        if leak is not None:
            after = torch.empty_like(x if v_seq else x[0], dtype=state_dtype(x.dtype))
            last, every = (None, after) if v_seq else (after, None)
        self._run("empf_forward", x, x.dtype, *self._operands(x, v, leak, threshold, spikes, last, every))
        return spikes, every if v_seq else last

    def backward(
        self, g_s: Tensor, v_seq: Tensor | None, x: Tensor | None, v: Tensor | None, threshold: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        g_x = torch.empty_like(g_s)
        g_threshold = torch.zeros_like(threshold, dtype=torch.float64)
        g_leak = None if v_seq is None else torch.zeros_like(g_threshold)
        operands = self._operands(g_s, v_seq, x, v, threshold, g_x, g_leak, g_threshold)
        self._run("empf_backward", g_s, g_s.dtype, *operands)
        return g_x, g_leak, g_threshold

    def potential(
        self, x: Tensor, v: Tensor | None, leak: Tensor, statistics: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        m = torch.empty_like(x, dtype=leak.dtype)
        mean = torch.zeros_like(leak, dtype=torch.float64) if statistics else None
        var = torch.zeros_like(mean) if mean is not None else None
        self._run("empf_potential", x, x.dtype, *self._operands(x, v, leak, m, mean, var))
        return m, mean, var

    def norm_forward(self, k: Norm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        spikes, v = torch.empty_like(k.m, dtype=dtype), torch.empty_like(k.m)
        self._run("empf_norm_forward", k.m, dtype, self._operands(*k), *self._operands(spikes, v))
        return spikes, v

    def norm_sums(self, k: Norm, g_s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        g_mh = torch.zeros_like(k.mean, dtype=torch.float64)
        g_mh_xhat = torch.zeros_like(g_mh)
        operands = self._operands(g_s, v, g_mh, g_mh_xhat)
        self._run("empf_norm_sums", k.m, g_s.dtype, self._operands(*k), *operands)
        return g_mh, g_mh_xhat

    def norm_backward(
        self, k: Norm, g_s: Tensor, v: Tensor, v_prev: Tensor | None, pull: Tensor, pull_xhat: Tensor
    ) -> tuple[Tensor, Tensor]:
        g_x, g_leak = torch.empty_like(g_s), torch.zeros_like(k.mean, dtype=torch.float64)
        operands = self._operands(g_s, v, v_prev, pull, pull_xhat, g_x, g_leak)
        self._run("empf_norm_backward", k.m, g_s.dtype, self._operands(*k), *operands)
        return g_x, g_leak
