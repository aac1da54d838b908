"""Weight standardisation: every backend against the reference in float64, and both against plain autograd."""

import pytest
import torch

from fastsnn.functional import standardize
from fastsnn.ops.standardize import EPS

from ..cases import DTYPES, LAYOUTS, assert_same, dtype_id, on_reference

pytestmark = pytest.mark.usefixtures("poisoned")

SHAPES = [(1, 2), (5, 7), (8, 3, 3, 3), (3, 2, 5), (5, 16, 3, 3), (37, 1041), (37, 1048), (4, 2, 3, 3, 3)]
# the sums are in double everywhere, so that one rounding to the weight's dtype is all the error there is
TOLERANCE = {
    torch.float32: {"rtol": 2e-7, "atol": 1e-7},
    torch.float64: {"rtol": 1e-12, "atol": 1e-13},
    torch.bfloat16: {"rtol": 2**-8, "atol": 1e-6},
    torch.float16: {"rtol": 2**-11, "atol": 1e-6},
}


def operands(*shape, dtype=torch.float64):
    """Weight, gain and gradient of the standardised weight."""
    weight, g_out = torch.randn(shape) + 0.5, torch.randn(shape)
    gain = torch.rand(len(weight), *[1] * (len(shape) - 1)) + 0.5
    return weight.to(dtype), gain.to(dtype), g_out.to(dtype)


def run(weight, gain, g_out, fn=standardize):
    """Standardised weight, gradient of the weight, gradient of the gain."""
    leaves = [weight.detach().requires_grad_(), gain.detach().requires_grad_()]
    out = fn(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, g_out))


def plain(weight, gain):
    """equations/ottt.md in differentiable torch operations."""
    dims = tuple(range(1, weight.dim()))
    var, mean = torch.var_mean(weight, dims, correction=1, keepdim=True)
    return gain * (weight - mean) / torch.sqrt(var * weight[0].numel() + EPS)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_float64_reference(variant, shape, dtype):
    given = operands(*shape, dtype=dtype)
    expected = on_reference(run, *(tensor.double() for tensor in given))
    actual = run(*given)
    assert {tensor.dtype for tensor in actual} == {dtype}
    assert_same(actual, tuple(tensor.to(dtype) for tensor in expected), **TOLERANCE[dtype])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reference_equals_autograd(shape):
    given = operands(*shape)
    assert_same(on_reference(run, *given), run(*given, fn=plain), rtol=1e-11, atol=1e-12)


def test_gradcheck():
    weight, gain, _ = operands(3, 2, 3)
    fn = lambda w, g: on_reference(standardize, w, g)  # noqa: E731
    assert torch.autograd.gradcheck(fn, (weight.requires_grad_(), gain.requires_grad_()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(backend, layout):
    weight, gain, g_out = operands(4, 3, 5, 7)
    given = (LAYOUTS[layout](weight), gain, LAYOUTS[layout](g_out))
    dense = [tensor.contiguous() for tensor in given]
    assert_same(run(*given), run(*dense), rtol=1e-12, atol=1e-13)
    # bitwise as rows are summed: in the order in which they lie, where one follows another
    order = {"transposed": (0, 1, 3, 2), "channels_last": (0, 2, 3, 1)}.get(layout, (0, 1, 2, 3))
    lies = lambda tensor: tensor.permute(order).contiguous()  # noqa: E731
    out, g_weight, g_gain = run(*given)
    assert_same((lies(out), lies(g_weight), g_gain), run(lies(given[0]), gain, lies(given[2])))


@pytest.mark.parametrize("given", [torch.channels_last, torch.contiguous_format])
def test_standardized_weights_lie_as_the_weights(backend, given):
    weight, gain, g_out = operands(4, 3, 5, 7)
    weight = weight.to(memory_format=given).requires_grad_()
    done = standardize(weight, gain)
    done.backward(g_out)
    assert done.is_contiguous(memory_format=given)
    assert weight.grad.is_contiguous(memory_format=given)


def test_one_and_two_threads_give_the_same_bits_every_time(backend):
    given, results = operands(37, 1041, dtype=torch.float32), []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        results.append(run(*given))
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


def test_a_large_mean_does_not_cancel(variant):
    weight, gain, g_out = operands(4, 1000)
    given = (weight + 1e4, gain, g_out)
    assert_same(run(*given), run(weight, gain, g_out, fn=plain), rtol=1e-8, atol=1e-9)
