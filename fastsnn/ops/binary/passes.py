"""Binary weights from float ones, and the product with packed ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ...reference.binary import Geometry


def binarize(kernels: Any, weight: Tensor, scaled: bool) -> Tensor:
    """scale_o * sign(W), or sign(W). Raises ValueError for NaN or infinite weights on the CPU."""
    out, scale = kernels.forward(weight.contiguous(), scaled)
    # a sum over NaN is NaN; on a device the question would wait for it
    if not scale.is_cuda and not bool(scale.isfinite().all()):
        raise ValueError("weight holds NaN or infinite values; binary weights need finite ones")
    return out


def binarize_gradient(kernels: Any, weight: Tensor, g_out: Tensor) -> Tensor:
    """The straight-through gradient."""
    return kernels.backward(weight.contiguous(), g_out.contiguous())


def _float(value: Tensor | None) -> Tensor | None:
    return value if value is None else value.float().contiguous()


def product(
    x: Tensor,
    words: Tensor,
    bits: int,
    shape: Any,
    scale: Tensor | None,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
) -> Tensor:
    """W_b x + bias of packed weights, over planes where they are a convolution's."""
    kernels, over = backends.select("binary", x), Geometry(*map(tuple, (stride, padding, dilation)))
    return kernels.product(x, words.contiguous(), bits, torch.Size(shape), _float(scale), _float(bias), over)
