"""Binary synapses as operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ...reference.binary import Geometry, output_shape
from ..common.autograd import first_order
from ..common.library import call, contiguous_like, define, differentiate
from . import passes


def _fake_binarize(weight: Tensor, *_: Any) -> Tensor:
    return contiguous_like(weight)


@define("binarize", "(Tensor weight, bool scaled) -> Tensor", _fake_binarize)
def binarize(weight: Tensor, scaled: bool) -> Tensor:
    """Binary weights."""
    return passes.binarize(backends.select("binary", weight), weight, scaled)


@define("binarize_backward", "(Tensor weight, Tensor g_out) -> Tensor", _fake_binarize)
def binarize_backward(weight: Tensor, g_out: Tensor) -> Tensor:
    """Their straight-through gradient."""
    return passes.binarize_gradient(backends.select("binary", weight), weight, g_out)


@first_order
def _binarize_gradient(ctx: Any, g_out: Tensor) -> tuple[Tensor, None]:
    return call(binarize_backward, *ctx.saved_tensors, g_out), None


differentiate("binarize", _binarize_gradient, lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]))


def _laid_out(y: Tensor, x: Tensor) -> Tensor:
    """A product in the memory order of its spikes: contiguous, or channels last."""
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return y.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _fake_product(x: Tensor, words: Tensor, bits: int, shape: Any, scale: Any, bias: Any, *geometry: Any) -> Tensor:
    return _laid_out(x.new_empty(output_shape(x.shape, shape, Geometry(*geometry))), x)


@define(
    "packed_product",
    "(Tensor x, Tensor words, int bits, SymInt[] shape, Tensor? scale, Tensor? bias, int[] stride, int[] padding, "
    "int[] dilation) -> Tensor",
    _fake_product,
)
def packed_product(x: Tensor, *given: Any) -> Tensor:
    """The product of spikes with packed weights."""
    return _laid_out(passes.product(x, *given), x)
