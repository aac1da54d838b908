"""STGR's step around SGD with momentum on one core."""

from __future__ import annotations

from torch import Tensor

from ..backends import cpu, register
from ..backends.core import Core
from .operands import DTYPES

SIGNATURES = {
    "stgr_sgd": (
        "where, n: int, dtype: dtype, first: bool, nesterov: bool, lam: float, gam: float, rho: float, lr: float, "
        "momentum: float, undamped: float, decay: float, grad: input, weight: >input, average: >input, "
        "previous: >input, momentum_buffer: >input"
    ),
}


class STGRKernels:
    """One pass over the tensors of a parameter; dense, of one memory order, float32 or float64."""

    def __init__(self, core: Core) -> None:
        self.NAME, self._core, self._where = core.name, core.checked(SIGNATURES), core.where

    def sgd(self, p: Tensor, tensors: tuple[Tensor, ...], first: bool, nesterov: bool, *scalars: float) -> None:
        """p and, of tensors, W_ema, the previous gradient and the momentum buffer change in place. tensors: gradient
        and these three; scalars: lam, gam, rho, lr, momentum, 1 - dampening, weight_decay."""
        gradient, *kept = tensors
        sizes = p.numel(), DTYPES[p.dtype]
        self._core.stgr_sgd(self._where(p), *sizes, first, nesterov, *scalars, gradient, p, *kept)


register("stgr", STGRKernels, cores=[cpu.CORE])
