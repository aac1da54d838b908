"""OSR, alone and with the neuron behind it: every backend against the reference."""

import pytest
import torch

import fastsnn
from fastsnn import backends, surrogate
from fastsnn.stats import Affine

from ..cases import (
    DTYPES,
    LAYOUTS,
    ONLINE,
    RESETS,
    assert_same,
    current,
    dtype_id,
    keep_of,
    on_reference,
    resets_of,
)

pytestmark = pytest.mark.usefixtures("poisoned")

SHAPES = [
    (5, 3),
    (6, 1, 4),
    (2, 7, 3, 5),
    (3, 18, 17, 13),
    (700, 33),
    (700, 24),
    (40, 264),
    (5, 2, 3000),
    (3, 2100),
    (2, 3, 2, 2, 2),
]
# sums are in double everywhere: one rounding to x's dtype is all the error there is
TOLERANCE = {
    torch.float32: {"rtol": 2e-7, "atol": 1e-7},
    torch.float64: {"rtol": 1e-11, "atol": 1e-12},
    torch.bfloat16: {"rtol": 2**-8, "atol": 1e-6},
    torch.float16: {"rtol": 2**-11, "atol": 1e-6},
}
EXACT = surrogate.Triangle(2.0)


def kernels(variant, family="osr"):
    """The forced backend's kernels; skips where it has none."""
    name = variant.partition(":")[0]
    refusal = backends.refusal(family, name, torch.empty(0).device)
    if refusal:
        pytest.skip(refusal)
    return backends.select(family, torch.empty(0))


def affine_of(channels):
    return Affine(*(torch.randn(3, channels, dtype=torch.float64)))


def statistics(channels):
    """Mean, inverse, factor and the two means of a gradient."""
    mean, factor = torch.randn(2, channels, dtype=torch.float64)
    means = torch.randn(2, channels, dtype=torch.float64)
    return mean, torch.rand(channels, dtype=torch.float64) + 0.5, factor, means


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(variant, shape, dtype):
    x, affine = current(*shape, dtype=dtype), affine_of(shape[1])
    y, moments = kernels(variant).normalize(x, affine, True)
    expected, own = on_reference(lambda: kernels("reference").normalize(x, affine, True))
    assert_same(y, expected)
    assert_same(tuple(moments), tuple(own), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(variant, shape, dtype):
    x, g = current(*shape, dtype=dtype), torch.randn(shape).to(dtype)
    mean, inverse, factor, means = statistics(shape[1])
    found, truth = kernels(variant), on_reference(lambda: kernels("reference"))
    sums, expected = (which.reduce(x, g, mean, inverse) for which in (found, truth))
    assert_same(sums, expected, rtol=1e-10, atol=1e-10)
    g_x, expected = (which.gradient(x, g, mean, inverse, factor, means) for which in (found, truth))
    assert_same(g_x, expected, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=dtype_id)
@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_a_large_mean_does_not_cancel(variant, spread, dtype):
    x = (1e4 + spread * torch.randn(9, 4, 40)).to(dtype)
    _, moments = kernels(variant).normalize(x, affine_of(4), True)
    exact = x.double().transpose(0, 1).flatten(1).var(1, correction=0)
    assert_same(moments.variance, exact, rtol=1e-9)


@pytest.mark.parametrize("value", [0.1, -1e4, 0.0])
def test_a_constant_has_no_variance(variant, value):
    _, moments = kernels(variant).normalize(torch.full((70, 3, 1000), value), affine_of(3), True)
    assert_same(moments.m2, torch.zeros(3, dtype=torch.float64))


def layer(*shape, dtype=torch.float32, **kwargs):
    """An OSR whose parameters and statistics are not the initial ones."""
    osr = fastsnn.nn.osr.OSR(shape[1], 3, **kwargs).to(dtype)
    with torch.no_grad():
        for tensor in (osr.weight, osr.bias, osr.running_mean):
            tensor.normal_()
        osr.running_var.uniform_(0.5, 2.0)
    return osr


def train(module, x, g):
    """Output of every step, gradients of x and of the parameters, and the running statistics."""
    x = x.detach().requires_grad_()
    outputs = [fastsnn.nn.plain(module(x_t)) for x_t in x]
    grads = torch.autograd.grad(outputs, (x, *module.parameters()), list(g))
    return torch.stack(outputs).detach(), *grads, *(b.clone() for b in module.buffers())


def both(make, x, g, variant):
    """The same training with the forced backend's kernels and with the reference's."""
    kernels(variant)
    torch.manual_seed(1)
    found = train(make(), x, g)
    torch.manual_seed(1)
    return found, on_reference(lambda: train(make(), x, g))


@pytest.mark.parametrize("max_ratio", [None, 0.0], ids=["running", "batch"])
@pytest.mark.parametrize("shape", [(9, 5), (4, 6, 5, 3)], ids=str)
def test_the_layer(variant, shape, max_ratio):
    x, g = current(4, *shape), torch.randn(4, *shape)
    found, expected = both(lambda: layer(*shape, max_ratio=max_ratio), x, g, variant)
    assert_same(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("max_ratio", [None, 0.0], ids=["running", "batch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=dtype_id)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("rule", ONLINE)
def test_fused_with_a_neuron_equals_the_two_layers_bitwise(variant, rule, reset, dtype, max_ratio):
    if reset not in resets_of(rule):
        return
    kernels(variant)
    shape, neuron = (4, 6, 5, 3), {"rule": rule, "v_reset": RESETS[reset], "tau": 1.7, "surrogate_function": EXACT}
    x, g = current(4, *shape, dtype=dtype), torch.randn(4, *shape, dtype=dtype)
    fused = fastsnn.OSRLIF(6, 3, max_ratio=max_ratio, dropout=0.3, **neuron).to(dtype)
    composed = torch.nn.Sequential(fastsnn.nn.osr.OSR(6, 3, max_ratio=max_ratio), fastsnn.LIF(dropout=0.3, **neuron))
    composed[0].to(dtype)
    torch.manual_seed(1)
    found = train(fused, x, g)
    torch.manual_seed(1)
    expected = train(composed, x, g)
    assert fused.neuron._backend == backends.select("osr", x).NAME
    assert_same(found[0], expected[0])
    tight = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-12}
    assert_same(found[1:], expected[1:], **tight)
    one, other = fused.neuron.state, composed[1].state
    assert_same(one._replace(potential=None, keep=None), other._replace(potential=None, keep=None))
    assert_same((one.potential, one.keep), (other.potential, other.keep))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=dtype_id)
@pytest.mark.parametrize("shape", [(9, 5), (4, 6, 5, 3)], ids=str)
def test_fused_half_types(variant, shape, dtype):
    found, truth = kernels(variant), on_reference(lambda: kernels("reference"))
    p = fastsnn.types.LIFParams(rule="ottt", v_reset=None, surrogate=EXACT)
    x, affine, state = current(*shape, dtype=dtype), affine_of(shape[1]), fastsnn.types.EMPTY
    (out, own), (expected, truly) = (which.lif_forward(p, x, affine, state, True) for which in (found, truth))
    assert_same(out._replace(v=None), expected._replace(v=None))
    assert_same(tuple(own), tuple(truly), rtol=1e-11, atol=1e-12)
    mean, inverse, *_ = statistics(shape[1])
    g_s, keep = torch.randn(shape).to(dtype), keep_of(x)
    given = (p, x, g_s, out.u, keep, mean, inverse)
    assert_same(found.lif_reduce(*given), truth.lif_reduce(*given), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("grad_layout", LAYOUTS)
@pytest.mark.parametrize("input_layout", LAYOUTS)
def test_layouts(backend, input_layout, grad_layout):
    kernels(backend)
    x, g = LAYOUTS[input_layout](current(3, 4, 6, 5, 3)), LAYOUTS[grad_layout](torch.randn(3, 4, 6, 5, 3))
    for make in (lambda: layer(4, 6), lambda: fastsnn.OSRLIF(6, 3, rule="ottt", surrogate_function=EXACT)):
        torch.manual_seed(1)
        expected = train(make(), x.contiguous(), g.contiguous())
        torch.manual_seed(1)
        assert_same(train(make(), x, g), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 70, 6, 40), (3, 9000, 5)], ids=["inner", "last"])
def test_one_and_two_threads_give_the_same_bits_every_time(backend, shape):
    kernels(backend)
    x, g, results = current(*shape), torch.randn(shape), []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        for make in (lambda: layer(*shape[1:]), lambda: fastsnn.OSRLIF(shape[2], 3, rule="ottt")):
            torch.manual_seed(1)
            results.append(train(make(), x, g))
    assert_same(results[2:4], results[:2])
    assert_same(results[4:], results[:2])


def test_nan_and_infinity_stay_in_their_channel(variant):
    kernels(variant)
    x, g = current(1, 4, 6, 5), torch.randn(1, 4, 6, 5)
    broken = x.clone()
    broken[0, 1, 2, 3], broken[0, 1, 4, 0] = torch.nan, torch.inf
    rest = [0, 1, 3, 5]
    torch.manual_seed(1)
    clean = train(layer(4, 6), x, g)
    torch.manual_seed(1)
    found = train(layer(4, 6), broken, g)
    assert_same(found[0][:, :, rest], clean[0][:, :, rest])
    assert_same(found[1][:, :, rest], clean[1][:, :, rest])
    assert not found[1][:, :, [2, 4]].isfinite().any()
