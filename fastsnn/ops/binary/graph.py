"""Binary synapses as operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import backends
from ...reference.binary import Geometry, output_shape
from ..common.library import contiguous_like, define, differentiate, named
from . import passes


def _fake_binarize(k: Any) -> Tensor:
    return contiguous_like(k.weight)


@define("binarize", "(Tensor weight, bool scaled) -> Tensor", _fake_binarize)
def binarize(k: Any) -> Tensor:
    """Binary weights."""
    return passes.binarize(backends.select("binary", k.weight), k.weight, k.scaled)


@define("binarize_backward", "(Tensor weight, Tensor g_out) -> Tensor", _fake_binarize)
def binarize_backward(k: Any) -> Tensor:
    """Their straight-through gradient."""
    return passes.binarize_gradient(backends.select("binary", k.weight), k.weight, k.g_out)


def _keep_weight(ctx: Any, k: Any, output: Tensor) -> None:
    ctx.save_for_backward(k.weight)


def _binarize_gradient(ctx: Any, g_out: Tensor) -> dict[str, Tensor]:
    (weight,) = ctx.saved_tensors
    return {"weight": binarize_backward(weight=weight, g_out=g_out)}


differentiate(binarize, _binarize_gradient, _keep_weight)


def _laid_out(y: Tensor, x: Tensor) -> Tensor:
    """A product in the memory order of its spikes: contiguous, or channels last."""
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return y.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _fake_product(k: Any) -> Tensor:
    geometry = Geometry(**named(k, Geometry._fields))
    return _laid_out(k.x.new_empty(output_shape(k.x.shape, k.shape, geometry)), k.x)


@define(
    "packed_product",
    "(Tensor x, Tensor words, int bits, SymInt[] shape, Tensor? scale, Tensor? bias, int[] stride, int[] padding, "
    "int[] dilation) -> Tensor",
    _fake_product,
)
def packed_product(k: Any) -> Tensor:
    """The product of spikes with packed weights."""
    return _laid_out(passes.product(*k), k.x)
