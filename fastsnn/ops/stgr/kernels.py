"""STGR's step around SGD with momentum on one core."""

from __future__ import annotations

from torch import Tensor

from ...backends import cpu, register
from ..common.kernels import DTYPES, Family


class STGRKernels(Family):
    """One pass over the tensors of a parameter; dense, of one memory order, float32 or float64."""

    CALLS = ("stgr_",)

    def sgd(self, p: Tensor, tensors: tuple[Tensor, ...], **numbers: float) -> None:
        """p and, of tensors, W_ema, the previous gradient and the momentum buffer change in place. tensors: gradient
        and these three; numbers: first, nesterov, lam, gam, rho, lr, momentum, undamped (1 - dampening), decay."""
        grad, average, previous, momentum = tensors
        given = {"grad": grad, "weight": p, "average": average, "previous": previous, "momentum_buffer": momentum}
        self._core.stgr_sgd(where=self._where(p), n=p.numel(), dtype=DTYPES[p.dtype], **numbers, **given)


register("stgr", STGRKernels, cores=[cpu.CORE])
