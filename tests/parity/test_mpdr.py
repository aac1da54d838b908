"""LIF with MPDR: every backend against the reference."""

import pytest
import torch

import fastsnn
from fastsnn import backends, surrogate
from fastsnn.online import MPDR
from fastsnn.ops.common import memory

from ..cases import (
    CHARGES,
    LAYOUTS,
    NEURONS,
    ONLINE,
    RULES,
    TORCH,
    TYPES,
    assert_same,
    current,
    on_reference,
    pairs,
)

pytestmark = pytest.mark.usefixtures("poisoned")

ISAS = [] if backends.cpu.refusal(torch.device("cpu")) else backends.cpu._cpu.isas()
TARGET = {"mean": -0.3, "std": 0.8, "weight": 500.0}
MOMENTS = {"rtol": 1e-12, "atol": 1e-15}
# where moments differ in the last bit, so do the coefficients made of them
CLOSE = {
    torch.float32: {"rtol": 1e-6, "atol": 1e-6},
    torch.float64: {"rtol": 1e-12, "atol": 1e-13},
    torch.bfloat16: {"rtol": 2**-7, "atol": 1e-5},
    torch.float16: {"rtol": 2**-10, "atol": 1e-5},
}


def gradients(config, x, g_s, mode="m", **mpdr):
    """Spikes, gradient of x of a loss with L_M, moments of every step."""
    regularised = MPDR(**TARGET, **{"propagate": True, **mpdr})
    layer = fastsnn.LIF(**config, step_mode=mode, mpdr=regularised)
    leaf = x.detach().requires_grad_()
    if mode == "m":
        spikes, moments = fastsnn.nn.plain(layer(leaf)), layer.moments
    else:
        rows = [(fastsnn.nn.plain(layer(x_t)), layer.moments) for x_t in leaf]
        spikes, moments = torch.stack([s for s, _ in rows]), torch.cat([m for _, m in rows])
    penalty = (regularised.weight * regularised.loss(moments)).sum()
    (g_x,) = torch.autograd.grad((spikes, penalty), leaf, (g_s, torch.ones_like(penalty)))
    return spikes.detach(), g_x, moments.detach()


def check(config, x, g_s, **options):
    spikes, g_x, moments = gradients(config, x, g_s, **options)
    truth = on_reference(gradients, config, x, g_s, **options)
    assert_same(spikes, truth[0])
    assert_same(g_x, truth[1], **CLOSE[x.dtype])
    assert_same(moments, truth[2], **MOMENTS)


CASES = {
    "typed": {f"{columns}-{name}": (columns, dtype) for columns in (41, 264) for name, dtype in TYPES.items()},
    "charge": CHARGES,
    "mode": {"s": "s", "m": "m"},
}


def configured(neuron, typed, charge, mode):
    columns, dtype = typed
    config = {**neuron, **charge, "surrogate_function": surrogate.Triangle(2.0)}
    x, g_s = current(4, 9, columns, dtype=dtype), torch.randn(4, 9, columns).to(dtype)
    check(config, x, g_s, mode=mode)


@pairs(neuron={name: neuron for name, neuron in NEURONS.items() if neuron["rule"] in ONLINE}, **CASES)
def test_online_rules(variant, neuron, typed, charge, mode):
    configured(neuron, typed, charge, mode)


@pairs(neuron={name: neuron for name, neuron in NEURONS.items() if neuron["rule"] not in ONLINE}, **CASES)
def test_rules_through_time(variant, neuron, typed, charge, mode):
    configured(neuron, typed, charge, mode)


@pytest.mark.parametrize("n", [1, 15, 17, 2047, 2049, 40_013])
@pytest.mark.parametrize("rule", ["sltt", "bptt"])
def test_sizes(variant, rule, n):
    check({"rule": rule, "surrogate_function": surrogate.Triangle()}, current(3, n), torch.randn(3, n))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", ["s", "m"])
def test_layouts(variant, mode, layout):
    x, g_s = LAYOUTS[layout](current(3, 2, 8, 5, 7)), torch.randn(3, 2, 8, 5, 7)
    check({"rule": "sltt", "surrogate_function": surrogate.Triangle()}, x, g_s, mode=mode)


@pytest.mark.parametrize("rule", ["sltt", "bptt"])
def test_threads_give_the_same_bits_every_time(variant, rule):
    x, g_s, results = current(3, 40_013), torch.randn(3, 40_013), []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        results.append(gradients({"rule": rule}, x, g_s))
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


@pytest.mark.skipif(len(ISAS) < 2, reason="this processor has one instruction set")
def test_instruction_sets_give_the_same_moments():
    found = []
    for isa in ISAS:
        backends.cpu._cpu.choose_isa(isa)
        layer = fastsnn.LIF.for_rule("sltt", step_mode="m", mpdr=MPDR(**TARGET, propagate=True))
        torch.manual_seed(0)
        layer(current(3, 40_013))
        found.append(layer.moments)
    assert all(torch.equal(found[0], other) for other in found)


def test_moments_of_a_large_mean(variant):
    x = (1e4 + torch.randn(1, 300_000, dtype=torch.float64)).float()
    x[0, 0] = 1e6
    layer = fastsnn.LIF.for_rule("sltt", step_mode="m", mpdr=MPDR(**TARGET, propagate=True))
    layer(x)
    expected = torch.stack([x.double().mean(), x.double().var(correction=0)])
    assert_same(layer.moments[0], expected, rtol=1e-11)
    layer.reset()
    layer(x[:, 1:])
    assert layer.moments[0, 1].item() == pytest.approx(x[:, 1:].double().var(correction=0).item(), rel=1e-11)


@pytest.mark.parametrize("value", [0.1, 0.0, -7.3])
def test_constant_potentials_are_pulled_by_their_mean(variant, value):
    x, g_s = torch.full((1, 5000), value), torch.zeros(1, 5000)
    _, g_x, moments = gradients({"rule": "sltt", "decay_input": False}, x, g_s)
    assert moments[0, 1] == 0
    pull = TARGET["weight"] * (value - TARGET["mean"]) / TARGET["std"] ** 2 / 5000
    assert_same(g_x, torch.full((1, 5000), pull), rtol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_reach_loss_and_gradient(variant, value):
    x = torch.randn(1, 5000)
    x[0, 4321] = value
    _, g_x, moments = gradients({"rule": "sltt"}, x, torch.zeros(1, 5000))
    assert moments.isnan().any()
    assert g_x.isnan().all()


@pytest.mark.parametrize("rule", RULES)
def test_no_elements(variant, rule):
    spikes, g_x, moments = gradients({"rule": rule, "v_reset": None}, torch.randn(2, 0), torch.randn(2, 0))
    assert spikes.shape == g_x.shape == (2, 0)
    assert moments.isnan().all()


def steps_in_place(rule, x):
    """Spikes and moments of steps whose state stays in its memory, and how many places that has."""
    layer, rows, places = fastsnn.LIF.for_rule(rule, mpdr=MPDR(**TARGET)), [], set()
    with memory.in_place(), torch.no_grad():
        for x_t in x:
            rows.append((fastsnn.nn.plain(layer(x_t)), layer.moments))
            places.add(layer.state.potential.data_ptr())
    return torch.stack([s for s, _ in rows]), torch.cat([m for _, m in rows]), len(places)


@pytest.mark.parametrize("rule", ONLINE)
def test_a_state_in_place(backend, rule):
    x = current(3, memory.WORTH_ASKING + 13)
    spikes, moments, places = steps_in_place(rule, x)
    expected, of_truth, _ = on_reference(steps_in_place, rule, x)
    if backend != "triton" or TORCH >= (2, 11):  # the interpreter of Triton 3.4 holds what it was given
        assert places == 1
    assert_same(spikes, expected)
    assert_same(moments, of_truth, **MOMENTS)
