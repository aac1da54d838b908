"""Binary synapses as registered operators."""

import pytest
import torch
from torch.library import opcheck

import fastsnn
from fastsnn.ops import binary
from fastsnn.ops.binary import graph as registered
from fastsnn.reference.binary import Geometry

from ..cases import DTYPES, assert_same, dtype_id

BOTH = pytest.mark.parametrize("backend", ["cpu", "reference"])


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_binarize_passes_opcheck(channels_last, scaled, dtype, backend):
    weight = torch.randn(5, 4, 3, 3, dtype=dtype)
    weight = weight.to(memory_format=torch.channels_last) if channels_last else weight
    with fastsnn.use_backend(backend):
        opcheck(registered.binarize_backward.op, (weight, torch.randn_like(weight).transpose(2, 3)))
        opcheck(registered.binarize.op, (weight.requires_grad_(), scaled))


def product_arguments(x, weight, scaled, geometry, bias):
    packed = binary.pack(weight, scaled)
    return x, packed.words, packed.bits, packed.shape, packed.scale, bias, *geometry


LAYOUTS = {
    "contiguous": torch.Tensor.contiguous,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "slice": lambda x: torch.cat([x, x], 1)[:, ::2],
    "one pixel": lambda x: x[..., :3, :3].contiguous(memory_format=torch.channels_last),
}


@BOTH
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("geometry", [Geometry(), Geometry((2, 1), (1, 1), (1, 2))], ids=["plain", "strided"])
def test_packed_convolution_passes_opcheck(geometry, layout, backend):
    x = LAYOUTS[layout]((torch.rand(2, 4, 7, 8) < 0.4).float())
    weight, bias = torch.randn(5, 4, 3, 3), torch.randn(5)
    with fastsnn.use_backend(backend):
        opcheck(registered.packed_product.op, product_arguments(x, weight, True, geometry, bias))


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=dtype_id)
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)], ids=str)
def test_packed_linear_passes_opcheck(shape, dtype, backend):
    x, weight = torch.ones(shape, dtype=dtype), torch.tensor([[1.0, -2.0, 0.0, 1.0]]).repeat(5, 1)
    with fastsnn.use_backend(backend):
        opcheck(registered.packed_product.op, product_arguments(x, weight, False, Geometry(), None))


def test_nan_raises_inside_an_operator():
    with pytest.raises(ValueError, match="NaN"):
        registered.binarize.op(torch.tensor([[1.0, torch.nan]]), True)


def test_a_second_derivative_raises():
    weight = torch.randn(3, 4, requires_grad=True)
    (g,) = torch.autograd.grad((registered.binarize.op(weight, True) * weight).sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_equals_the_eager_call():
    weight, g = torch.randn(3, 4, 2, 2, requires_grad=True), torch.randn(3, 4, 2, 2)
    found = [fn(weight, True) for fn in (registered.binarize.op, binary.binarize)]
    assert_same(*found)
    assert_same(*(torch.autograd.grad(out, weight, g) for out in found))
