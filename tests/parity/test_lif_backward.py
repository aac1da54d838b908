"""LIF backward: every backend against the reference."""

import pytest
import torch

from fastsnn import surrogate
from fastsnn.functional import lif_sequence

from ..cases import (
    CHARGES,
    DTYPES,
    LAYOUTS,
    NEURONS,
    ONLINE,
    RESETS,
    RULES,
    SIZES,
    SURROGATES,
    TYPES,
    assert_same,
    configurations,
    current,
    dtype_id,
    keep_of,
    on_reference,
    pairs,
    sequence,
    steps,
)

pytestmark = pytest.mark.usefixtures("poisoned")

# backends have their own exp: everything else rounds as the reference does
EXP = (surrogate.Sigmoid, surrogate.PiecewiseExp, surrogate.Erf)
TOLERANCE = {
    torch.float32: {"rtol": 2e-6, "atol": 1e-7},
    torch.float64: {"rtol": 1e-13, "atol": 1e-15},
    torch.bfloat16: {"rtol": 2**-7, "atol": 1e-6},
    torch.float16: {"rtol": 2**-10, "atol": 1e-6},
}
EXACT = surrogate.Triangle(2.0)


def gradients(run, x, g_s=None, g_v=None, v=None, **kwargs):
    """Gradients to x and v of the spikes and potentials that `run` returns, for the output gradients given."""
    inputs = [tensor.detach().requires_grad_() for tensor in (x, v) if tensor is not None]
    out = run(inputs[0], v=inputs[1] if v is not None else None, **kwargs)
    given = [(o, g) for o, g in ((out.spikes, g_s), (out.v, g_v)) if g is not None]
    outputs, grads = zip(*given, strict=True)
    return torch.autograd.grad(outputs, inputs, grads)


def case(*shape, dtype=torch.float32):
    """Input, gradients of the spikes and of v, first v."""
    x = current(*shape, dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    g_v, v = torch.randn(shape, dtype=wide), torch.randn(shape[1:], dtype=wide)
    return {"x": x, "g_s": torch.randn(shape).to(dtype), "g_v": g_v, "v": v}


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("detach_reset", [False, True], ids=["reset", "detached"])
@pytest.mark.parametrize("v_reset", RESETS.values(), ids=RESETS)
@pytest.mark.parametrize("shape", SURROGATES, ids=repr)
def test_bptt_of_every_surrogate(variant, shape, v_reset, detach_reset, dtype):
    config = {"surrogate_function": shape, "v_reset": v_reset, "detach_reset": detach_reset}
    operands = case(3, 9, 41, dtype=dtype)
    tolerance = TOLERANCE[dtype] if isinstance(shape, EXP) else {}
    expected = on_reference(gradients, sequence, **operands, **config)
    assert_same(gradients(sequence, **operands, **config), expected, **tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", SURROGATES, ids=repr)
def test_online_gradient_of_every_surrogate(variant, shape, dtype):
    config = {"surrogate_function": shape, "rule": "sltt"}
    operands = {"x": current(3, 9, 41, dtype=dtype), "g_s": torch.randn(3, 9, 41).to(dtype)}
    tolerance = TOLERANCE[dtype] if isinstance(shape, EXP) else {}
    expected = on_reference(gradients, sequence, **operands, **config)
    assert_same(gradients(sequence, **operands, **config), expected, **tolerance)


@pairs(neuron=NEURONS, charge=CHARGES, dtype=TYPES)
def test_step_gradients_equal_the_sequence(variant, neuron, charge, dtype):
    operands, config = case(4, 9, 41, dtype=dtype), neuron | charge
    operands["keep"] = keep_of(operands["x"][0])
    if config["rule"] in ONLINE:
        del operands["g_v"], operands["v"]
    expected = gradients(sequence, **operands, **config)
    assert_same(gradients(steps, **operands, **config), expected)


@pytest.mark.parametrize("config", configurations(taus=(1.7,)))
def test_configurations(variant, config):
    operands = case(4, 9, 41)
    operands["keep"] = keep_of(operands["x"][0])
    if config["rule"] in ONLINE:
        del operands["g_v"], operands["v"]
    operands["surrogate_function"] = EXACT
    expected = on_reference(gradients, sequence, **operands, **config)
    assert_same(gradients(sequence, **operands, **config), expected)


@pytest.mark.parametrize("T", [1, 31, 33, 1100])
@pytest.mark.parametrize("rule", ["bptt", "sltt"])
def test_lengths(variant, rule, T):
    operands = {"x": current(T, 150), "g_s": torch.randn(T, 150)}
    config = {"rule": rule, "surrogate_function": EXACT}
    expected = on_reference(gradients, sequence, **operands, **config)
    assert_same(gradients(sequence, **operands, **config), expected)


@pytest.mark.parametrize(("n", "dtype"), SIZES)
@pytest.mark.parametrize("run", [sequence, steps], ids=["sequence", "steps"])
@pytest.mark.parametrize("rule", RULES)
def test_sizes(variant, rule, run, n, dtype):
    operands = {"x": current(3, n, dtype=dtype), "g_s": torch.randn(3, n).to(dtype)}
    operands["keep"] = keep_of(operands["x"][0])
    config = {"rule": rule, "v_reset": None, "surrogate_function": EXACT}
    expected = on_reference(gradients, sequence, **operands, **config)
    assert_same(gradients(run, **operands, **config), expected)


@pytest.mark.parametrize("grad_layout", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("run", [sequence, steps], ids=["sequence", "steps"])
@pytest.mark.parametrize("rule", ["bptt", "ottt"])
def test_layouts(backend, rule, run, layout, grad_layout):
    operands = case(3, 2, 8, 5, 7)
    plain = {"x": LAYOUTS[layout](operands["x"]), "g_s": LAYOUTS[grad_layout](operands["g_s"])}
    if rule == "bptt":
        plain |= {"g_v": LAYOUTS[grad_layout](operands["g_v"]), "v": LAYOUTS[layout](operands["v"])}
    config = {"rule": rule, "surrogate_function": EXACT}
    contiguous = {name: tensor.contiguous() for name, tensor in plain.items()}
    expected = on_reference(gradients, sequence, **contiguous, **config)
    assert_same(gradients(run, **plain, **config), expected)


@pytest.mark.parametrize("given", [("g_s",), ("g_v",), ("g_s", "v"), ("g_v", "v")], ids="+".join)
@pytest.mark.parametrize("run", [sequence, steps], ids=["sequence", "steps"])
def test_missing_gradients_count_as_zero(backend, run, given):
    operands = case(4, 41)
    some = {name: operands[name] for name in ("x", *given)}
    zeros = some | {name: torch.zeros_like(operands[name]) for name in {"g_s", "g_v"} - {*given}}
    assert_same(gradients(run, **some), gradients(run, **zeros))


def test_gradient_through_the_last_v_alone(backend):
    x, g_v = current(4, 41), torch.randn(41)
    grads = []
    for run in (lif_sequence, sequence):
        leaf = x.clone().requires_grad_()
        v = run(leaf).v
        grads += torch.autograd.grad(v if v.dim() == 1 else v[-1], leaf, g_v)
    assert_same(grads[0], grads[1])


@pytest.mark.parametrize("rule", ONLINE)
def test_online_rules_give_v_no_gradient(backend, rule):
    x, v = current(3, 41).requires_grad_(), torch.randn(41, requires_grad=True)
    out = sequence(x, v=v, rule=rule, v_reset=None)
    assert out.spikes.requires_grad
    assert not any(t is not None and t.requires_grad for t in out[1:])
    out.spikes.sum().backward()
    assert v.grad is None


@pytest.mark.parametrize("rule", RULES)
def test_sum_gives_the_gradient_of_ones(backend, rule):
    x = current(3, 4, 41).requires_grad_()
    config = {"rule": rule, "v_reset": None}
    summed = torch.autograd.grad(sequence(x, **config).spikes.sum(), x)
    spikes = sequence(x, **config).spikes
    assert_same(torch.autograd.grad(spikes, x, torch.ones_like(spikes)), summed)


@pytest.mark.parametrize("run", [sequence, steps], ids=["sequence", "steps"])
@pytest.mark.parametrize("rule", ["bptt", "sltt"])
def test_one_and_two_threads_give_the_same_bits_every_time(backend, run, rule):
    operands = {"x": current(3, 40_013), "g_s": torch.randn(3, 40_013)}
    results = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        results.append(gradients(run, **operands, rule=rule))
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])
