"""LIF forward: every backend against the reference."""

import pytest
import torch

import fastsnn
from fastsnn import backends
from fastsnn.reference import lif as reference
from fastsnn.types import EMPTY, LIFParams, state_of

from ..cases import (
    CHARGES,
    LAYOUTS,
    NEURONS,
    ONLINE,
    RESETS,
    RULES,
    SIZES,
    TYPES,
    assert_same,
    configurations,
    current,
    dyadic,
    keep_of,
    on_reference,
    pairs,
    sequence,
    steps,
)

pytestmark = pytest.mark.usefixtures("poisoned")


@pairs(neuron=NEURONS, charge=CHARGES, dtype=TYPES)
def test_steps_equal_the_reference(variant, neuron, charge, dtype):
    x, config = current(4, 9, 7, 41, dtype=dtype), neuron | charge
    assert_same(steps(x, **config), on_reference(steps, x, **config))


@pairs(neuron=NEURONS, charge=CHARGES, dtype=TYPES)
def test_sequence_equals_the_steps(variant, neuron, charge, dtype):
    x, config = current(4, 9, 7, 41, dtype=dtype), neuron | charge
    keep = keep_of(x[0])
    assert_same(sequence(x, keep=keep, **config), steps(x, keep=keep, **config))


@pytest.mark.parametrize("config", configurations(taus=(2.0,)))
def test_float32_equals_the_float64_reference_on_a_dyadic_grid(variant, config):
    x = dyadic(4, 5, 41)
    truth = on_reference(sequence, x.double(), **config)
    actual = sequence(x, **config)
    assert_same(actual.spikes.double(), truth.spikes)
    assert_same(actual.v.double(), truth.v)
    if truth.trace is not None:
        assert_same(actual.trace.double(), truth.trace, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("n", "dtype"), SIZES)
@pytest.mark.parametrize("rule", RULES)
def test_sizes(variant, rule, n, dtype):
    x = current(3, n, dtype=dtype)
    config = {"rule": rule, "v_reset": None, "keep": keep_of(x[0])}
    assert_same(sequence(x, **config), on_reference(sequence, x, **config))
    assert_same(steps(x, **config), on_reference(steps, x, **config))


@pytest.mark.parametrize("shape", [(1,), (3, 0, 2), (1, 1, 1, 5)], ids=str)
def test_any_number_of_dimensions(backend, shape):
    x = current(*shape)
    assert_same(sequence(x), on_reference(sequence, x))


def test_a_single_number(backend):
    x = torch.tensor(3.0)
    assert_same(fastsnn.functional.lif_step(x).spikes, torch.tensor(1.0))


@pytest.mark.parametrize("T", [1, 2, 130])
@pytest.mark.parametrize("rule", RULES)
def test_sequence_lengths(variant, rule, T):
    x = current(T, 43)
    config = {"rule": rule, "v_reset": None}
    assert_same(sequence(x, **config), on_reference(sequence, x, **config))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", RULES)
def test_layout_of_the_input(backend, rule, layout):
    x = LAYOUTS[layout](current(3, 2, 8, 5, 7))
    config = {"rule": rule, "v_reset": None}
    expected = on_reference(sequence, x.contiguous(), **config)
    assert_same(sequence(x, **config), expected)
    assert_same(steps(x, **config), expected)


@pytest.mark.parametrize("state_layout", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_the_state(backend, layout, state_layout):
    config = {"rule": "ndot", "v_reset": None}
    first = steps(current(2, 2, 8, 5, 7), **config)
    x = LAYOUTS[layout](current(2, 8, 5, 7))
    state = [LAYOUTS[state_layout](t) for t in (first.v[-1], first.trace[-1], first.ratio)]
    keep = LAYOUTS[layout](keep_of(x))
    expected = on_reference(fastsnn.functional.lif_step, x, *state, keep=keep, **config)
    assert_same(fastsnn.functional.lif_step(x, *state, keep=keep, **config), expected)


@pairs(neuron=NEURONS, charge=CHARGES, dtype=TYPES)
def test_a_sequence_continues_from_a_state(variant, neuron, charge, dtype):
    x, config = current(5, 41, dtype=dtype), neuron | charge
    whole = sequence(x, **config)
    first = sequence(x[:2], **config)
    trace = None if first.trace is None else first.trace[-1]
    slots = {name: value for name, value in first._asdict().items() if name not in ("spikes", "v", "trace")}
    rest = sequence(x[2:], v=first.v[-1], trace=trace, **slots, **config)
    assert_same(rest.spikes, whole.spikes[2:])
    assert_same(rest.v, whole.v[2:])
    assert_same(rest[3:], whole[3:])
    assert_same(rest.trace, None if trace is None else whole.trace[2:])


@pytest.mark.parametrize("rule", ONLINE)
def test_the_new_state_may_take_the_memory_of_the_old(variant, rule):
    p = LIFParams(rule=rule, v_reset=None)
    x = current(2, 20_011)
    kernels = backends.select("lif", x)
    first = kernels.forward(p, x[0], EMPTY, False)
    state = state_of(p.places, first.u, False, first.slots, None)
    expected = reference.forward(p, x[1], state, False)
    actual = kernels.forward(p, x[1], state, False, into=state)
    assert actual.u is state.potential
    assert all(slot is state[place] for slot, place in zip(actual.slots, p.places, strict=True))
    assert_same(actual._replace(v=None), expected._replace(v=None))


@pytest.mark.parametrize("store", [True, False], ids=["every_v", "last_v"])
@pytest.mark.parametrize("rule", RULES)
def test_v_of_the_last_or_of_every_step(backend, rule, store):
    x = current(4, 41)
    config = {"rule": rule, "v_reset": None}
    v = steps(x, **config).v
    out = fastsnn.functional.lif_sequence(x, store_v_seq=store, **config)
    assert_same(out.v, v if store else v[-1])


@pytest.mark.parametrize("rule", RULES)
def test_equality_fires(variant, rule):
    x = torch.tensor([1.0, 1.0 - 2**-24])
    spikes = fastsnn.functional.lif_step(x, rule=rule, v_reset=None, decay_input=False).spikes
    assert spikes.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("v_reset", RESETS.values(), ids=RESETS)
def test_infinite_threshold_never_fires(variant, v_reset):
    x = 100 * current(4, 41)
    config = {"v_threshold": float("inf"), "v_reset": v_reset}
    out = sequence(x, **config)
    assert not out.spikes.any()
    assert_same(out, on_reference(sequence, x, **config))


@pytest.mark.parametrize("v_reset", RESETS.values(), ids=RESETS)
def test_a_given_v_is_after_its_reset_even_where_infinite(variant, v_reset):
    x, v = current(3, 5), torch.tensor([torch.inf, -torch.inf, torch.nan, 5.0, 0.0])
    config = {"v_reset": v_reset}
    assert_same(steps(x, v, **config), on_reference(steps, x, v, **config), equal_nan=True)


@pytest.mark.parametrize("rule", RULES)
def test_nan_and_infinity_in_the_input_stay_where_they_are(variant, rule):
    x = current(3, 41)
    clean = sequence(x, rule=rule, v_reset=None)
    x[1, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    config = {"rule": rule, "v_reset": None}
    assert_same(sequence(x, **config).spikes[:, 3:], clean.spikes[:, 3:])
    for actual, expected in zip(sequence(x, **config), on_reference(sequence, x, **config), strict=True):
        if expected is not None:
            torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


EDGES = [0.0, -0.0, 1e-45, -1e-45, 1e-38, 0.25, -0.5, 1.0, 3e38, -3e38, torch.inf, -torch.inf, torch.nan]


@pytest.mark.parametrize("rule", ["ndot", "ndot_released"])
def test_ratios_of_zeros_subnormals_infinities_and_nan(variant, rule):
    numerator, denominator = torch.cartesian_prod(torch.tensor(EDGES), torch.tensor(EDGES)).unbind(1)
    ones = torch.ones_like(numerator)
    if rule == "ndot":
        state = {"v": denominator, "trace": ones, "ratio": ones}
    else:
        state = {"v": torch.zeros_like(ones), "trace": ones, "ratio": denominator}
    config = {"rule": rule, "v_reset": None, "decay_input": False}
    expected = on_reference(fastsnn.functional.lif_step, numerator, **state, **config)
    actual = fastsnn.functional.lif_step(numerator, **state, **config)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("rule", RULES)
def test_one_and_two_threads_give_the_same_bits_every_time(backend, rule):
    x = current(3, 40_013)
    runs = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        runs.append(sequence(x, rule=rule, v_reset=None))
    assert_same(runs[1], runs[0])
    assert_same(runs[2], runs[0])
