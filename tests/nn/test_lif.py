"""The LIF layer: configuration, modes, outputs."""

import inspect
import math

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.types import RULES

from ..cases import DTYPES, ONLINE, TRACED, assert_same, configurations, current, dtype_id


def outputs(neuron, x):
    """Spikes, trace (or None) and input gradient of all steps of x."""
    leaf = x.clone().requires_grad_()
    out = neuron(leaf) if neuron.step_mode == "m" else torch.stack([neuron(x_t) for x_t in leaf])
    spikes = fastsnn.nn.plain(out)
    return spikes.detach(), getattr(out, "_trace", None), *torch.autograd.grad(spikes.sum(), leaf)


def state_values(neuron):
    return [value.clone() if isinstance(value, torch.Tensor) else value for value in neuron.state]


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("config", configurations(taus=(1.7,)))
def test_the_two_step_modes_agree_exactly(config, dtype):
    x = current(5, 3, 41, dtype=dtype)
    by_step, fused = fastsnn.LIF(**config), fastsnn.LIF(**config, step_mode="m")
    assert_same(outputs(fused, x), outputs(by_step, x))
    assert_same((fused.v, fused.trace), (by_step.v, by_step.trace))
    assert_same(outputs(fused, x), outputs(by_step, x))


@pytest.mark.parametrize("config", configurations(taus=(1.7,)))
def test_the_mode_may_change_in_mid_sequence(config):
    x = current(6, 3, 41)
    expected = outputs(fastsnn.LIF(**config), x)[0]
    neuron = fastsnn.LIF(**config)
    first = [neuron(x_t) for x_t in x[:2]]
    neuron.step_mode = "m"
    middle = neuron(x[2:5])
    neuron.step_mode = "s"
    actual = torch.cat([torch.stack(first), middle, neuron(x[5])[None]])
    assert_same(fastsnn.nn.plain(actual), expected)


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("rule", RULES)
def test_traced_rules_return_traced_spikes_in_training_only(rule, mode):
    neuron = fastsnn.LIF.for_rule(rule, step_mode=mode)
    x = current(3, 41)
    assert isinstance(neuron(x), fastsnn.TracedSpikes) == (rule in TRACED)
    fastsnn.reset(neuron.eval())
    assert type(neuron(x)) is torch.Tensor
    assert neuron.trace is None


@pytest.mark.parametrize("rule", RULES)
def test_evaluation_fires_the_same_spikes(rule):
    x = current(5, 3, 41)
    neuron = fastsnn.LIF.for_rule(rule, step_mode="m")
    training = neuron(x)
    fastsnn.reset(neuron.eval())
    assert_same(neuron(x), fastsnn.nn.plain(training))


@pytest.mark.parametrize("rule", TRACED)
def test_trace_is_that_of_the_last_step(rule):
    neuron = fastsnn.LIF.for_rule(rule, step_mode="m")
    assert neuron.trace is None
    s = neuron(current(4, 41))
    assert_same(neuron.trace, s.trace[-1])


@pytest.mark.parametrize("v_reset", [None, 0.0, 0.25], ids=str)
@pytest.mark.parametrize("rule", ["bptt", "sltt"])
def test_v_is_the_potential_after_the_reset(rule, v_reset):
    neuron = fastsnn.LIF(rule=rule, v_reset=v_reset)
    assert neuron.v == (v_reset or 0.0)
    x = current(3, 41)
    for x_t in x:
        neuron(x_t)
    assert_same(neuron.v, fastsnn.functional.lif_sequence(x, rule=rule, v_reset=v_reset).v)


@pytest.mark.parametrize("rule", ["bptt", "ottt"])
def test_an_assigned_v_is_where_the_next_step_starts(rule):
    x, v = current(2, 41)
    neuron = fastsnn.LIF(rule=rule)
    neuron.v = v
    assert_same(neuron.v, v)
    assert_same(fastsnn.nn.plain(neuron(x)), fastsnn.functional.lif_step(x, v).spikes)


@pytest.mark.parametrize("rule", RULES)
def test_v_seq(rule):
    x = current(4, 41)
    by_step = fastsnn.LIF.for_rule(rule, store_v_seq=True)
    fused = fastsnn.LIF.for_rule(rule, store_v_seq=True, step_mode="m")
    assert by_step.v_seq is None
    for x_t in x:
        by_step(x_t)
    fused(x)
    assert_same(by_step.v_seq, fused.v_seq)
    assert_same(fused.v_seq[-1], fused.v)
    fastsnn.reset(by_step)
    assert by_step.v_seq is None


@pytest.mark.parametrize("rule", RULES)
def test_for_rule_gives_the_papers_defaults(rule):
    neuron = fastsnn.LIF.for_rule(rule)
    paper = (True, 0.0, "Sigmoid") if rule == "bptt" else (False, None, RULES[rule].paper["surrogate_function"][0])
    assert (neuron.decay_input, neuron.v_reset, type(neuron.surrogate_function).__name__) == paper
    assert (neuron.rule, neuron.tau, neuron.v_threshold) == (rule, 2.0, 1.0)


def test_for_rule_takes_overrides():
    neuron = fastsnn.LIF.for_rule("ottt", tau=3, v_reset=0.5, step_mode="m")
    assert (neuron.tau, neuron.v_reset, neuron.step_mode, neuron.decay_input) == (3, 0.5, "m", False)


def test_signature_starts_as_spikingjellys():
    expected = "self tau decay_input v_threshold v_reset surrogate_function detach_reset step_mode store_v_seq"
    assert list(inspect.signature(fastsnn.LIF.__init__).parameters)[:9] == expected.split()


def test_assigned_parameters_take_effect():
    neuron, x = fastsnn.LIF(), current(4, 41)
    neuron.tau, neuron.v_reset, neuron.v_threshold, neuron.decay_input = 3.0, None, 0.5, False
    neuron.rule, neuron.step_mode = "ndot", "m"
    config = {"tau": 3.0, "v_reset": None, "v_threshold": 0.5, "decay_input": False, "rule": "ndot"}
    assert_same(neuron(x).trace, fastsnn.functional.lif_sequence(x, **config).trace)


def test_an_assignment_out_of_range_changes_nothing():
    neuron = fastsnn.LIF(tau=3.0)
    with pytest.raises(ValueError, match=r"tau is 1\.0; it must be > 1"):
        neuron.tau = 1.0
    with pytest.raises(ValueError, match="rule 'ndot' needs soft reset and v_reset is 0"):
        neuron.rule = "ndot"
    assert (neuron.tau, neuron.rule) == (3.0, "bptt")


REFUSED = {
    "tau-1": ({"tau": 1.0}, ValueError, r"tau is 1\.0; it must be > 1"),
    "tau-negative": ({"tau": -2}, ValueError, "tau is -2; it must be > 1"),
    "tau-nan": ({"tau": math.nan}, ValueError, "tau is NaN"),
    "tau-str": ({"tau": "2"}, TypeError, r"tau is '2' \(str\); it must be a number"),
    "tau-bool": ({"tau": True}, TypeError, r"tau is True \(bool\); it must be a number"),
    "threshold-nan": ({"v_threshold": math.nan}, ValueError, "v_threshold is NaN"),
    "threshold-str": ({"v_threshold": "1"}, TypeError, r"v_threshold is '1' \(str\); it must be a number"),
    "threshold-none": ({"v_threshold": None}, TypeError, r"v_threshold is None .*must be a number"),
    "reset-inf": ({"v_reset": math.inf}, ValueError, "v_reset is inf; it must be finite, or None"),
    "reset-str": ({"v_reset": "soft"}, TypeError, "v_reset is 'soft'"),
    "rule": ({"rule": "otttt"}, ValueError, "rule is 'otttt'; allowed: bptt, sltt, ottt, ndot, ndot_released"),
    "rule-type": ({"rule": 3}, ValueError, "rule is 3; allowed: bptt"),
    "ndot-hard": ({"rule": "ndot"}, ValueError, r"rule 'ndot' needs soft reset and v_reset is 0\.0.*for_rule"),
    "released-hard": ({"rule": "ndot_released", "v_reset": 1.0}, ValueError, r"v_reset is 1\.0"),
    "surrogate-name": ({"surrogate_function": "atan"}, TypeError, "surrogate_function is 'atan'; allowed are .*ATan"),
    "surrogate-class": ({"surrogate_function": fastsnn.surrogate.ATan}, TypeError, "surrogate_function is <class"),
    "step_mode": ({"step_mode": "x"}, ValueError, "step_mode is 'x'; allowed: 's' .* and 'm'"),
    "dropout-1": ({"dropout": 1.0}, ValueError, r"dropout is 1\.0; it must be in \[0, 1\)"),
    "dropout-negative": ({"dropout": -0.1}, ValueError, r"dropout is -0\.1; it must be in"),
    "dropout-nan": ({"dropout": math.nan}, ValueError, "dropout is NaN"),
    "dropout-str": ({"dropout": "0.1"}, TypeError, "dropout is '0.1'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_out_of_range(case):
    kwargs, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        fastsnn.LIF(**kwargs)


def test_for_rule_refuses_an_unknown_rule():
    with pytest.raises(ValueError, match="rule is 'xyz'; allowed: bptt"):
        fastsnn.LIF.for_rule("xyz")


WRONG_INPUTS = {
    "integer": (torch.ones(3, 41, dtype=torch.int64), TypeError, r"x has dtype torch\.int64; allowed: torch\.float32"),
    "bool": (torch.ones(3, 41, dtype=torch.bool), TypeError, r"x has dtype torch\.bool"),
    "complex": (torch.ones(3, 41, dtype=torch.complex64), TypeError, r"x has dtype torch\.complex64"),
    "list": ([1.0], TypeError, r"x is list; it must be a torch\.Tensor"),
    "other-shape": (torch.ones(3, 40), ValueError, r"is \(41,\).*fastsnn\.reset\(net\)"),
    "float64": (torch.ones(3, 41, dtype=torch.float64), ValueError, r"state \w+ is .*torch\.float32.*torch\.float64"),
    "other-device": (torch.ones(3, 41, device="meta"), ValueError, r"state \w+ is .* on cpu .* on meta"),
}


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_a_wrong_input_is_refused_and_leaves_the_state(case, rule, mode):
    x, error, message = WRONG_INPUTS[case]
    neuron = fastsnn.LIF.for_rule(rule, step_mode=mode)
    good = current(3, 41)
    neuron(good if mode == "m" else good[0])
    before = state_values(neuron)
    with pytest.raises(error, match=message):
        neuron(x if mode == "m" or isinstance(x, list) else x[0])
    assert_same([*before], [*neuron.state])


@pytest.mark.parametrize("x", [torch.ones(0, 3), torch.tensor(1.0)], ids=["T=0", "no-time"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_sequence_needs_time(x, dropout):
    with pytest.raises(ValueError, match=r"x has shape .*'m' needs \[T, N, \*\] with T >= 1"):
        fastsnn.LIF(step_mode="m", dropout=dropout)(x)


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("rule", TRACED)
def test_dropout(rule, mode):
    x = current(6, 4000)
    neuron = fastsnn.LIF.for_rule(rule, step_mode=mode, dropout=0.3)
    out = neuron(x) if mode == "m" else torch.stack([neuron(x_t) for x_t in x])
    keep = neuron.state.keep
    assert set(keep.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert (keep == 0).float().mean().item() == pytest.approx(0.3, abs=0.04)
    config = {"rule": rule, "v_reset": None, "decay_input": False}
    expected = fastsnn.functional.lif_sequence(x, keep=keep, **config)
    assert_same((out.spikes, out.trace), (expected.spikes, expected.trace))
    unmasked = fastsnn.functional.lif_sequence(x, **config)
    assert_same(out.spikes, unmasked.spikes * keep)
    assert_same(neuron.v, unmasked.v)


def test_dropout_draws_a_new_mask_for_every_sequence():
    neuron, x = fastsnn.LIF.for_rule("ottt", dropout=0.5), current(4000)
    neuron(x)
    first = neuron.state.keep
    neuron(x)
    assert_same(neuron.state.keep, first)
    fastsnn.reset(neuron)
    neuron(x)
    assert not torch.equal(neuron.state.keep, first)


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "mid-sequence"])
def test_dropout_is_off_in_evaluation(trained):
    x, outputs = current(2, 4000), []
    for dropout in (0.0, 0.9):
        neuron = fastsnn.LIF.for_rule("ottt", dropout=dropout).train(trained)
        neuron(x[0])
        outputs.append(neuron.eval()(x[1]))
    assert_same(outputs[1], outputs[0])


@pytest.mark.parametrize("rule", ["bptt", "sltt"])
def test_dropout_masks_the_gradient(rule):
    neuron, x = fastsnn.LIF(rule=rule, dropout=0.5), current(4000).requires_grad_()
    neuron(x).sum().backward()
    assert not x.grad[neuron.state.keep == 0].any()
    assert x.grad[neuron.state.keep > 0].any()


def test_repr_names_every_argument():
    text = repr(fastsnn.LIF.for_rule("ndot", tau=3.0, dropout=0.25))
    for part in ("rule='ndot'", "tau=3.0", "v_reset=None", "Sigmoid(alpha=4.0)", "step_mode='s'", "dropout=0.25"):
        assert part in text


@pytest.mark.parametrize("rule", RULES)
def test_no_gradient_without_a_request(rule):
    x = current(3, 41)
    with torch.no_grad():
        assert not fastsnn.nn.plain(fastsnn.LIF.for_rule(rule)(x.clone().requires_grad_())).requires_grad
    assert not fastsnn.nn.plain(fastsnn.LIF.for_rule(rule)(x)).requires_grad


@pytest.mark.parametrize("rule", ONLINE)
def test_a_frozen_layer_behind_needs_no_input_gradient(rule):
    neuron, linear = fastsnn.LIF.for_rule(rule), nn.Linear(41, 5)
    linear(neuron(current(3, 41))).sum().backward()
    assert linear.weight.grad.any()


def test_zero_neurons():
    neuron = fastsnn.LIF.for_rule("ottt")
    x = torch.zeros(0, 5, requires_grad=True)
    neuron(x).sum().backward()
    assert x.grad.shape == neuron.v.shape == neuron.trace.shape == (0, 5)
