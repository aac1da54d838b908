"""The stabilised step's two passes: every backend against the reference."""

import pytest
import torch

from fastsnn import surrogate
from fastsnn.types import LIFParams

from ..cases import LAYOUTS, NEURONS, TYPES, assert_same, current, keep_of, on_reference, pairs
from ..nn.test_ots import neuron as layer
from ..nn.test_ots import run
from .test_osr import kernels

pytestmark = pytest.mark.usefixtures("poisoned")

SHAPES = [(1,), (9, 5), (3, 700, 41), (24, 701), (4, 6, 5, 3)]
EXACT = surrogate.Triangle(2.0)


@pairs(
    neuron={name: NEURONS[name] for name in ("sltt-soft", "sltt-hard0.25", "ottt-soft", "ottt-hard0.25")},
    dtype=TYPES,
    shape={str(shape): shape for shape in SHAPES},
    given={"first": False, "later": True},
)
def test_both_passes_and_the_gradient(variant, neuron, dtype, shape, given):
    found, truth = kernels(variant, "ots"), on_reference(lambda: kernels("reference", "ots"))
    p = LIFParams(tau=1.7, **neuron, surrogate=EXACT)
    x, g_s, threshold = current(*shape, dtype=dtype), torch.randn(shape).to(dtype), torch.tensor(0.7).double()
    v, trace, keep = (keep_of(x) - 0.3, keep_of(x), keep_of(x)) if given else (None, None, None)
    (u, moments), (u_true, truly) = (which.charge(p, x, v) for which in (found, truth))
    assert_same(u, u_true)
    assert_same(tuple(moments), tuple(truly), rtol=1e-11, atol=1e-12)
    assert_same(*(which.fire(p, u, threshold, trace, keep, dtype) for which in (found, truth)))
    assert_same(*(which.backward(p, u, threshold, keep, g_s, dtype) for which in (found, truth)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(backend, layout):
    kernels(backend, "ots")
    x = LAYOUTS[layout](current(3, 4, 6, 5, 3))
    assert_same(run(layer("ottt"), x), run(layer("ottt"), x.contiguous()))


def test_one_and_two_threads_give_the_same_bits_every_time(backend):
    which, x, results = kernels(backend, "ots"), current(40_013, 3), []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        u, moments = which.charge(LIFParams(rule="sltt"), x, None)
        results.append((u, *moments))
    assert_same(results[1:], [results[0], results[0]])


def test_a_large_mean_does_not_cancel(variant):
    x = 1e4 + torch.randn(100_000)
    p = LIFParams(rule="sltt", decay_input=False)
    u, moments = kernels(variant, "ots").charge(p, x, None)
    assert_same(moments.unbiased_std, u.double().std(), rtol=1e-9)
