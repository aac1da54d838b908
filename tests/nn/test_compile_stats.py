"""OSR, OSRLIF and OTS inside one graph of torch.compile, against eager: outputs, gradients, statistics and state."""

import copy

import pytest
import torch
from torch import nn

import fastsnn

from ..cases import ONLINE, TORCH, assert_same, compiled, current, graphs
from .training import one_call, remembered, train_by_step

pytestmark = [
    pytest.mark.usefixtures("no_graphs"),
    pytest.mark.skipif(TORCH < (2, 11), reason="graphs of torch before 2.11 take no properties of named tuples"),
]

STEPS = 10  # more than torch.compile makes graphs of one function


def norm(**kwargs):
    return nn.Sequential(fastsnn.OSR1d(6, STEPS, **kwargs), fastsnn.LIF.for_rule("ottt", v_threshold=0.3))


def fused(rule="ottt", **kwargs):
    return fastsnn.OSRLIF.for_rule(rule, 6, STEPS, v_threshold=0.3, **kwargs)


def stabilized(rule="ottt", **kwargs):
    return fastsnn.LIF.for_rule(rule, v_threshold=0.3, threshold="ots", **kwargs)


LAYERS = {
    "osr": norm,
    "osr-fallback": lambda: norm(max_ratio=0.7, strict=True),
    "osr-batch": lambda: norm(max_ratio=0.0),
    **{f"osrlif-{rule}": lambda rule=rule: fused(rule) for rule in ONLINE},
    "osrlif-fallback": lambda: fused(max_ratio=0.7, strict=True),
    "osrlif-dropout": lambda: fused(dropout=0.3),
    "osrlif-bptt": lambda: fused("bptt"),
    "osrlif-ots": lambda: fused("sltt", threshold="ots"),
    "ots-sltt": lambda: stabilized("sltt"),
    "ots-ottt": stabilized,
    "ots-dropout": lambda: stabilized(dropout=0.3),
    "ots-stored": lambda: stabilized(store_v_seq=True),
}
EVERY = pytest.mark.parametrize("name", LAYERS)
SOME = pytest.mark.parametrize("name", ["osr", "osrlif-ndot", "ots-ottt"])
SEQUENCES = {
    "osrlif": lambda: fused("ndot", step_mode="m"),
    "osrlif-bptt": lambda: fused("bptt", step_mode="m"),
    "ots": lambda: stabilized(step_mode="m"),
}


def network(make):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 6), make(), nn.Linear(6, 3))


@EVERY
def test_an_update_at_every_step_equals_eager_in_two_graphs(name):
    x = current(STEPS + 2, 5, 8)
    net, other = network(LAYERS[name]), network(LAYERS[name])
    step = compiled(other)
    for length in (len(x), 3):  # beyond the last step of a sequence, and a shorter one
        # eager takes OTS's sums where it normalises: in another order
        close = {"rtol": 1e-5, "atol": 1e-6} if name == "osrlif-ots" else {}
        assert_same(train_by_step(other, step, x[:length]), train_by_step(net, net, x[:length]), **close)
    for one in (net, other):
        fastsnn.reset(one)
    assert_same([*other.buffers()], [*net.buffers()])
    assert graphs() == (3 if name == "ots-stored" else 2)  # the first step, and all others


@SOME
def test_no_recompilation_of_steps_as_time_and_batch_change(name):
    net, other = network(LAYERS[name]), network(LAYERS[name])
    step = compiled(other)
    for batch in (3, 5):
        train_by_step(other, step, current(3, batch, 8))
    fastsnn.reset(other)
    other.load_state_dict(net.state_dict())
    with torch.compiler.set_stance("fail_on_recompile"):
        for T, batch in ((STEPS, 4), (2, 7)):
            x = current(T, batch, 8)
            assert_same(train_by_step(other, step, x), train_by_step(net, net, x))
    assert graphs() == 4  # the first step and the others, static and dynamic


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_equal_eager_in_a_graph_for_each_length(name):
    """Their steps are unrolled."""
    net, other = network(SEQUENCES[name]), network(SEQUENCES[name])
    step = compiled(other)
    for T, batch in ((4, 3), (4, 5), (4, 7), (3, 7)):
        x = current(T, batch, 8)
        assert_same(one_call(other, step, x), one_call(net, net, x))


@EVERY
def test_evaluation_equals_eager(name):
    x, net = current(4, 5, 8), network(LAYERS[name])
    train_by_step(net, net, x)
    fastsnn.reset(net)
    other = copy.deepcopy(net.eval())
    step = compiled(other)
    torch.manual_seed(2)
    with torch.no_grad():
        for x_t in x:
            assert_same(step(x_t), net(x_t))
    assert_same(remembered(other), remembered(net))
    assert_same([*other.buffers()], [*net.buffers()])


def test_fixed_thresholds_train_and_evaluate_in_a_graph():
    net, other = (network(lambda: stabilized(fixed_threshold=True)) for _ in range(2))
    other.load_state_dict(net.state_dict())
    x = current(6, 5, 8)
    train_by_step(net, net, x[:4])
    train_by_step(other, compiled(other), x[:4])
    assert_same([*other.buffers()], [*net.buffers()], rtol=1e-6, equal_nan=True)
    assert graphs() == 2
    torch._dynamo.reset()
    fastsnn.reset(net)
    other = copy.deepcopy(net.eval())
    step = compiled(other)
    with torch.no_grad():
        for x_t in x:  # two steps more than thresholds
            assert_same(step(x_t), net(x_t))
    assert graphs() == 4


@SOME
def test_eager_and_compiled_steps_mix(name):
    net, other = network(LAYERS[name]), network(LAYERS[name])
    step, x = compiled(other), current(STEPS + 2, 5, 8)
    for t, x_t in enumerate(x):
        assert_same((step if t % 3 else other)(x_t), net(x_t))
        for one in (net, other):
            fastsnn.detach(one)
    assert_same(remembered(other), remembered(net))
    assert_same([*other.buffers()], [*net.buffers()])


def test_a_reset_inside_the_graph_folds_the_sequence():
    net, other, x = network(LAYERS["osrlif-sltt"]), network(LAYERS["osrlif-sltt"]), current(3, 4, 5, 8)

    def run(layers, x):
        fastsnn.reset(layers)
        return [layers(x_t) for x_t in x]

    step = compiled(lambda x: run(other, x))
    for sequence in x:
        assert_same(step(sequence), run(net, sequence))
        assert_same([*other.buffers()], [*net.buffers()])
    assert net[1].norm.num_batches_tracked == 2


def test_states_can_be_kept():
    net, x = network(LAYERS["osr"]), current(4, 5, 8)
    step = compiled(net)
    step(x[0])
    saved = fastsnn.states(net)
    expected = step(x[1])
    kept = remembered(net)
    fastsnn.load_states(net, saved)
    assert_same(step(x[1]), expected)
    assert_same(remembered(net), kept)
    assert net[1][0].double().state.steps.dtype == torch.int64


def test_channels_last_equals_eager():
    x, results = current(12, 4, 3, 3).to(memory_format=torch.channels_last).unflatten(0, (4, 3)), []
    for prepare in (lambda net: net, compiled):
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1), fastsnn.OSRLIF.for_rule("ottt", 6, 3, v_threshold=0.3), nn.Conv2d(6, 2, 3)
        )
        net.to(memory_format=torch.channels_last)
        results.append([*train_by_step(net, prepare(net), x), net[1].neuron.state.potential.stride()])
    assert results[0][-1] == (54, 1, 18, 6)
    assert_same(results[1], results[0])


@pytest.mark.slow
@SOME
def test_inductor_equals_eager_but_for_rounding(name):
    x, net, other = current(3, 5, 8), network(LAYERS[name]), network(LAYERS[name])
    actual = train_by_step(other, compiled(other, "inductor"), x)
    assert_same(actual, train_by_step(net, net, x), rtol=1e-4, atol=1e-5)


def test_strict_refuses_nan_in_a_graph_and_leaves_the_remembered():
    net, x = fastsnn.OSR1d(6, 3, strict=True), torch.randn(5, 6)
    step = compiled(net)
    step(x)
    step(x)
    before = [*remembered(net), *(buffer.clone() for buffer in net.buffers())]
    with pytest.raises(FloatingPointError, match="not accumulated"):
        step(torch.full((5, 6), torch.nan))
    assert_same([*remembered(net), *net.buffers()], before)


def test_explain_says_that_the_neuron_ran_in_a_graph():
    for layer in (fused(), stabilized()):
        compiled(layer)(torch.randn(5, 6))
        assert "last call: torch.compile" in getattr(layer, "neuron", layer).explain()
