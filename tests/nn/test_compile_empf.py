"""EM-PF networks inside one graph of torch.compile, against eager: outputs, gradients, statistics and state."""

import copy

import pytest
import torch
from torch import nn

import fastsnn

from ..cases import assert_same, compiled, current, graphs, in_a_graph
from .training import held, one_call, remembered, train_by_step

pytestmark = pytest.mark.usefixtures("no_graphs")

STEPS = 10  # more than torch.compile makes graphs of one function
VERSIONS = pytest.mark.parametrize("version", ["I", "II", "III"])
PER_CHANNEL = pytest.mark.parametrize("per_channel", [False, True], ids=["shared", "per_channel"])


def network(version, per_channel=True, step_mode="s", steps=STEPS):
    torch.manual_seed(1)
    arguments = {"per_channel": per_channel, "threshold": 0.3, "step_mode": step_mode}
    net = nn.Sequential(
        nn.Linear(8, 6),
        fastsnn.EMPF(steps, version, 6, **arguments),
        nn.Linear(6, 6),
        fastsnn.EMPF(steps, version, 6, **arguments),
        nn.Linear(6, 3),
    )
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "beta" in name or "leak" in name:
                p.copy_(torch.rand_like(p))
    return net


@PER_CHANNEL
@VERSIONS
def test_an_update_at_every_step_equals_eager_in_two_graphs(version, per_channel):
    x, net, other = current(STEPS, 3, 8), network(version, per_channel), network(version, per_channel)
    step = compiled(other)
    for _ in range(2):
        assert_same(train_by_step(other, step, x), train_by_step(net, net, x))
    assert graphs() == 2  # the first step, and all others


@PER_CHANNEL
@VERSIONS
def test_sequences_equal_eager(version, per_channel):
    x, net, other = current(4, 3, 8), *(network(version, per_channel, "m", 4) for _ in range(2))
    assert_same(one_call(other, compiled(other), x), one_call(net, net, x))


@pytest.mark.parametrize("step_mode", ["s", "m"])
@VERSIONS
def test_evaluation_equals_eager(version, step_mode):
    x, net = current(4, 3, 8), network(version, step_mode=step_mode, steps=4)
    train_by_step(net, net, x) if step_mode == "s" else one_call(net, net, x)
    fastsnn.reset(net)
    net.zero_grad()
    other = copy.deepcopy(net.eval())
    step = compiled(other)
    with torch.no_grad():
        for x_t in x if step_mode == "s" else [x]:
            assert_same(step(x_t), net(x_t))
    assert_same(held(other), held(net))


@VERSIONS
def test_no_recompilation_of_steps_as_the_batch_changes(version):
    net, other = network(version), network(version)
    step = compiled(other)
    for batch in (3, 5):
        train_by_step(other, step, current(3, batch, 8))
    other.load_state_dict(net.state_dict())
    with torch.compiler.set_stance("fail_on_recompile"):
        for T, batch in ((STEPS, 4), (2, 7)):
            x = current(T, batch, 8)
            assert_same(train_by_step(other, step, x), train_by_step(net, net, x))
    assert graphs() == 4  # the first step and the others, static and dynamic


@VERSIONS
def test_no_recompilation_of_sequences_as_the_batch_changes(version):
    net, other = network(version, step_mode="m", steps=4), network(version, step_mode="m", steps=4)
    step = compiled(other)
    for batch in (3, 5):
        one_call(other, step, current(4, batch, 8))
    other.load_state_dict(net.state_dict())
    with torch.compiler.set_stance("fail_on_recompile"):
        for batch in (4, 7):
            x = current(4, batch, 8)
            assert_same(one_call(other, step, x), one_call(net, net, x))
    assert graphs() == 2


@VERSIONS
def test_a_step_after_the_last_raises_and_changes_nothing(version):
    net = network(version, steps=3)
    step, x = compiled(net), current(4, 3, 8)
    for x_t in x[:3]:
        step(x_t)
    before = [value.clone() for value in net.state_dict().values()]
    with pytest.raises(RuntimeError, match=r"after the last of steps = 3.*fastsnn\.reset\(net\)"):
        step(x[3])
    assert_same([*net.state_dict().values()], before)
    with pytest.raises(RuntimeError, match="step 4 of steps = 3"):
        net(x[3])
    fastsnn.reset(net)
    step(x[0])


def test_eager_and_compiled_steps_mix():
    net, other = network("II"), network("II")
    step, x = compiled(other), current(6, 3, 8)
    for t, x_t in enumerate(x):
        assert_same((step if t % 3 else other)(x_t), net(x_t))
    assert_same(remembered(other), remembered(net))


def test_states_of_a_compiled_network_can_be_kept_and_copied():
    net, x = network("I"), current(4, 3, 8)
    step = compiled(net)
    step(x[0])
    saved, copied = fastsnn.states(net), copy.deepcopy(net)
    expected = step(x[1])
    fastsnn.load_states(net, saved)
    assert_same(step(x[1]), expected)
    assert_same(copied(x[1]), expected)
    net.double()
    assert net[1].state.t.dtype == torch.int64


def test_channels_last_equals_eager():
    x, results = current(12, 4, 3, 3).to(memory_format=torch.channels_last).unflatten(0, (4, 3)), []
    for prepare in (lambda net: net, compiled):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), fastsnn.EMPF(4, "II", 6, threshold=0.3), nn.Conv2d(6, 2, 3))
        net.to(memory_format=torch.channels_last)
        results.append([*train_by_step(net, prepare(net), x), net[1].v.stride()])
    assert results[0][-1] == (54, 1, 18, 6)
    assert_same(results[1], results[0])


@pytest.mark.slow
@pytest.mark.parametrize("version", ["I", "II"])
def test_inductor_equals_eager_but_for_rounding(version):
    x, net, other = current(4, 3, 8), network(version), network(version)
    actual = train_by_step(other, compiled(other, "inductor"), x)
    assert_same(actual, train_by_step(net, net, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_equals_eager(dtype):
    x, results = current(4, 3, 8), []
    for prepare in (lambda net: net, compiled):
        net = network("II")
        results.append(train_by_step(net, torch.autocast("cpu", dtype=dtype)(prepare(net)), x))
    assert results[1][0].dtype == dtype
    assert_same(results[1], results[0])


def test_a_forced_backend_holds_in_a_graph_compiled_before():
    step = compiled(fastsnn.EMPF(4))
    step(torch.ones(3))
    step(torch.ones(3))
    with fastsnn.use_backend("cuda"), pytest.raises(fastsnn.BackendError, match="forced"):
        step(torch.ones(3))


@pytest.mark.parametrize("x", [torch.ones(5), torch.ones(3, dtype=torch.int64)], ids=["shape", "dtype"])
def test_what_does_not_fit_raises(x):
    step = compiled(fastsnn.EMPF(4))
    step(torch.ones(3))
    with pytest.raises(Exception, match=in_a_graph(r"fastsnn\.reset\(net\)|int64")):
        step(x)
