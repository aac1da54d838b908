"""Synapses with binary weights (EM-PF, Hao et al. 2024; equations/empf.md)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.binary import binarize
from ..types import flag
from .traced import plain

__all__ = ["BinaryConv2d", "BinaryLinear"]


class _Binary(nn.Module):
    """Mixin: the float weight is trained, its sign is used. `scale` says whether the sign is scaled."""

    weight: Tensor
    scale: bool

    def binary_weight(self) -> Tensor:
        """W_b = mean |W| * sign(W) per output channel, or sign(W), with the straight-through gradient to W."""
        return binarize(self.weight, self.scale)


class BinaryLinear(_Binary, nn.Linear):
    """nn.Linear with binary weights. Arguments as nn.Linear, and `scale`: multiply by mean |W| (True) or not.

    The gradient of W_b reaches W where -1 <= W <= 1; sign(0) = 0. Traced spikes are taken as plain ones: the weight
    gradient uses the spike, not the trace. `fastsnn.deploy.pack` stores 1 bit a weight, or 2 where a weight is zero.
    Raises ValueError for weights that are NaN or infinite (CPU).
    """

    def __init__(self, *args: Any, scale: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scale = flag("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """y = W_b x + b for x [*, in]."""
        return F.linear(plain(x), self.binary_weight(), self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale={self.scale}"


class BinaryConv2d(_Binary, nn.Conv2d):
    """nn.Conv2d with binary weights. Arguments as nn.Conv2d, and `scale`; gradients and errors as BinaryLinear."""

    def __init__(self, *args: Any, scale: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scale = flag("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """y = W_b * x + b for x [N, in, height, width]."""
        return self._conv_forward(plain(x), self.binary_weight(), self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale={self.scale}"
