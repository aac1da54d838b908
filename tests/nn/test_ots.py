"""The online threshold stabiliser as an option of the neuron."""

import copy

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.nn.ots import OTSState
from fastsnn.stats import Moments
from fastsnn.types import RULES

from ..cases import assert_same, current

RULE = ["sltt", "ottt"]


def neuron(rule="sltt", **kwargs):
    return fastsnn.LIF.for_rule(rule, threshold="ots", **kwargs)


def watched(lif):
    """The list that receives the layer's thresholds."""
    thresholds = []
    lif.stabilizer.register_forward_hook(lambda _, __, threshold: thresholds.append(threshold.item()))
    return thresholds


def run(net, x):
    return torch.stack([fastsnn.nn.plain(net(x_t)) for x_t in x]).detach()


def spikes_by_definition(x, lam=0.5, th_0=1.0):
    """equations/ots.md with soft reset, in float64."""
    v, q, rows, thresholds = torch.zeros_like(x[0]), None, [], []
    for x_t in x:
        u = lam * v + x_t
        mean, std = u.mean(), u.std()
        q = (th_0 - mean) / std if q is None else q
        th = mean + q * std
        s = (u >= th).to(u)
        v = u - th * s
        rows.append(s)
        thresholds.append(th.item())
    return torch.stack(rows), thresholds


def test_the_definition():
    x, lif = 2 * torch.randn(5, 6, 5, 4, dtype=torch.float64), neuron()
    thresholds = watched(lif)
    spikes = run(lif, x)
    expected, of_each = spikes_by_definition(x)
    assert_same(spikes, expected)
    assert thresholds == pytest.approx(of_each, rel=1e-12)
    assert thresholds[0] == 1.0
    assert len({*thresholds}) == 5


@pytest.mark.parametrize("rule", RULE)
def test_the_firing_rate_follows_the_quantile(rule):
    growing = torch.linspace(1, 4, 6).view(-1, 1, 1) * torch.randn(6, 100, 50)
    rates = run(neuron(rule), growing).mean((1, 2))
    plain = run(fastsnn.LIF.for_rule(rule), growing).mean((1, 2))
    assert (rates.max() - rates.min()) < (plain.max() - plain.min()) / 4


def test_hard_reset_and_trace():
    x, lif = current(4, 6, 5), neuron("ottt", v_reset=0.25)
    thresholds, trace = watched(lif), torch.zeros(6, 5)
    for t, x_t in enumerate(x):
        before = lif.v
        s = lif(x_t)
        u = 0.5 * before + x_t + 0.125
        fired = u >= torch.tensor(thresholds[t], dtype=torch.float32)
        trace = 0.5 * trace + fired
        assert_same(s.spikes, fired.float())
        assert_same(lif.v, torch.where(fired, torch.full_like(u, 0.25), u))
        assert_same(s.trace, trace)


@pytest.mark.parametrize("rule", RULE)
def test_a_sequence_equals_its_steps(rule):
    x = current(4, 6, 5)
    by_step, whole = neuron(rule, store_v_seq=True), neuron(rule, step_mode="m", store_v_seq=True)
    expected = torch.stack([*map(by_step, x)])
    found = whole(x)
    assert type(found) is type(expected)
    assert_same(fastsnn.nn.plain(found), fastsnn.nn.plain(expected))
    assert_same(whole.v_seq, by_step.v_seq)
    fastsnn.reset(whole)
    assert_same(fastsnn.nn.plain(whole(x)), fastsnn.nn.plain(expected))


def test_evaluation_depends_on_the_batch_unless_fixed():
    x = 2 * torch.randn(3, 64, 30) + torch.arange(3).view(3, 1, 1)
    for fixed in (False, True):
        lif = neuron(fixed_threshold=fixed)
        run(lif, x)
        fastsnn.reset(lif.eval())
        whole = run(lif, x)
        fastsnn.reset(lif)
        assert torch.equal(run(lif, x[:, :1]), whole[:, :1]) == fixed


def test_running_thresholds():
    x, lif = torch.randn(2, 3, 64, 30) * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), neuron(fixed_threshold=True)
    thresholds = watched(lif)
    for sequence in x:
        run(lif, sequence)
        fastsnn.reset(lif)
    first, second = torch.tensor(thresholds[:3]), torch.tensor(thresholds[3:])
    buffer = lif.stabilizer.running_threshold
    running = buffer[:3].clone()
    assert buffer[3:].isnan().all()
    assert_same(running, 0.9 * first + 0.1 * second, rtol=1e-6)
    lif.eval()
    run(lif, torch.randn(5, 2, 30))
    assert thresholds[6:] == [*running.tolist(), running[-1].item(), running[-1].item()]
    assert lif.stabilizer.running_threshold is buffer
    assert_same(buffer[:3], running)


def test_fixed_evaluation_before_training_takes_the_first_threshold():
    lif = neuron(fixed_threshold=True).eval()
    thresholds = watched(lif)
    run(lif, torch.randn(2, 3, 30))
    assert thresholds == [1.0, 1.0]


def test_steps_beyond_the_buffer_share_its_last_place():
    lif = neuron(fixed_threshold=True)
    last = lif.stabilizer.STEPS - 1
    lif.stabilizer.state = lif.stabilizer.state._replace(steps=last)
    thresholds = watched(lif)
    run(lif, torch.randn(3, 4, 30))
    running = lif.stabilizer.running_threshold
    expected = 0.9 * (0.9 * thresholds[0] + 0.1 * thresholds[1]) + 0.1 * thresholds[2]
    assert running[last].item() == pytest.approx(expected)
    assert running[:last].isnan().all()


def test_running_thresholds_follow_an_average_of_models():
    net = nn.Sequential(neuron(fixed_threshold=True))
    averaged = torch.optim.swa_utils.AveragedModel(net)
    buffers, references = dict(net.named_buffers()), net.state_dict()
    run(net, torch.randn(3, 4, 30))
    averaged.update_parameters(net)
    running = net[0].stabilizer.running_threshold
    assert_same(averaged.module[0].stabilizer.running_threshold, running, equal_nan=True)
    assert buffers["0.stabilizer.running_threshold"] is running
    assert_same(references["0.stabilizer.running_threshold"], running, equal_nan=True)


def test_running_thresholds_trained_after_inference_mode():
    lif, x = neuron(fixed_threshold=True), torch.randn(4, 3, 30)
    with torch.inference_mode():
        run(lif, x[:1])
        lif.load_state_dict(lif.state_dict())
    run(lif, x[1:])
    assert lif.stabilizer.running_threshold[:4].isfinite().all()


def test_running_thresholds_are_in_the_state_dict():
    trained, fresh = neuron(fixed_threshold=True), neuron(fixed_threshold=True)
    run(trained, torch.randn(3, 4, 30))
    fresh.load_state_dict(trained.state_dict())
    assert_same(fresh.stabilizer.running_threshold, trained.stabilizer.running_threshold, equal_nan=True)
    assert not neuron().state_dict()


@pytest.mark.parametrize("x", [torch.ones(3, 4, 30), torch.full((3, 1, 1), 0.75)], ids=["no-spread", "one-neuron"])
def test_without_a_spread_the_threshold_stays(x):
    lif = neuron()
    thresholds = watched(lif)
    assert_same(run(lif, x), run(fastsnn.LIF.for_rule("sltt"), x))
    assert thresholds == [1.0, 1.0, 1.0]


def test_the_first_step_with_a_spread_sets_the_quantile():
    x, lif = torch.randn(3, 4, 30), neuron()
    x[0] = 0.0
    thresholds = watched(lif)
    run(lif, x)
    assert thresholds[:2] == [1.0, 1.0]
    assert thresholds[2] != 1.0


def test_one_sample():
    spikes = run(neuron(), torch.randn(4, 1, 200))
    assert 0 < spikes.mean() < 1


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_infinity_leave_the_threshold(bad):
    x, lif = torch.randn(3, 4, 30), neuron()
    x[1, 2, 3] = bad
    thresholds = watched(lif)
    run(lif, x)
    assert thresholds[:2] == [1.0, 1.0]


def test_no_neurons():
    assert neuron()(torch.empty(0, 3, requires_grad=True)).shape == (0, 3)


def test_state_is_saved_and_restored():
    x, net = current(4, 6, 5), nn.Sequential(neuron("ottt"))
    run(net, x[:2])
    saved, other = fastsnn.states(net), copy.deepcopy(net)
    assert saved.keys() == {"0", "0.stabilizer"}
    rest = run(net, x[2:])
    assert_same(run(other, x[2:]), rest)
    fastsnn.reset(net)
    assert net[0].stabilizer.state == OTSState()
    fastsnn.load_states(net, saved)
    assert_same(run(net, x[2:]), rest)


@pytest.mark.parametrize("rule", sorted({*RULES} - {*RULE}))
def test_other_rules_are_refused(rule):
    with pytest.raises(ValueError, match=f"rule is '{rule}'; threshold='ots' goes with 'sltt' and 'ottt'"):
        neuron(rule)
    lif = neuron()
    lif.v_reset, lif.rule = None, rule
    with pytest.raises(ValueError, match="threshold='ots' goes with"):
        lif(torch.ones(3))


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="threshold is 'OTS'; allowed"):
        fastsnn.LIF(threshold="OTS")
    with pytest.raises(ValueError, match="fixed_threshold=True needs threshold='ots'"):
        fastsnn.LIF(fixed_threshold=True)
    with pytest.raises(ValueError, match="v_threshold is inf"):
        neuron(v_threshold=float("inf"))


def test_behind_a_fused_normalisation():
    x = current(3, 6, 5, 4)
    fused = fastsnn.OSRLIF.for_rule("ottt", 5, 3, threshold="ots")
    composed = nn.Sequential(fastsnn.OSR1d(5, 3), neuron("ottt"))
    assert_same(run(fused, x), run(composed, x))
    assert fused.neuron.stabilizer.state.steps == 3
    for net in (fused.eval(), composed.eval()):
        fastsnn.reset(net)
    assert_same(run(fused, x), run(composed, x))


def test_behind_a_fused_normalisation_a_sequence_equals_its_steps():
    x = current(3, 6, 5, 4)
    by_step, whole = (
        fastsnn.OSRLIF.for_rule("ottt", 5, 3, threshold="ots", step_mode=mode, store_v_seq=True) for mode in "sm"
    )
    for _ in range(2):
        assert_same(fastsnn.nn.plain(whole(x)), run(by_step, x))
        assert_same(whole.neuron.v_seq, by_step.neuron.v_seq[-3:])
        assert_same([*whole.buffers()], [*by_step.buffers()])
        fastsnn.reset(by_step)
        fastsnn.reset(whole)


def test_a_fused_normalisation_is_not_run_before_a_rule_is_refused():
    fused = fastsnn.OSRLIF.for_rule("sltt", 5, 3, threshold="ots")
    fused.neuron.rule = "ndot"
    with pytest.raises(ValueError, match="threshold='ots' goes with"):
        fused(torch.randn(6, 5))
    assert fused.norm.state.steps == 0


@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 3)], ids=str)
def test_no_neurons_behind_a_fused_normalisation(shape):
    fused, x = fastsnn.OSRLIF.for_rule("ottt", 5, 3, threshold="ots"), torch.empty(shape, requires_grad=True)
    fastsnn.nn.plain(fused(x)).sum().backward()
    assert x.grad.shape == shape
    assert fused.norm.state.steps == fused.neuron.stabilizer.state.steps == 1


def test_a_threshold_has_no_graph():
    lif = neuron()
    moments = Moments(*torch.tensor([4.0, 0.5, 2.0], dtype=torch.float64).requires_grad_())
    assert not lif.stabilizer(moments, 1.0).requires_grad
