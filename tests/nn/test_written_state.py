"""What is written into a neuron's state is what its next step starts from; single samples start anew."""

import copy
import io
import os

import pytest
import torch
from spikingjelly.activation_based import neuron as sj
from torch import nn

import fastsnn
from fastsnn.ops.common import memory
from fastsnn.types import RULES

from ..cases import ONLINE, TRACED, assert_same, current

T, N = 6, 4


def lif(rule="ottt", **kwargs):
    return fastsnn.LIF.for_rule(rule, v_threshold=0.4, **kwargs)


def plain(spikes):
    return fastsnn.nn.plain(spikes)


NEURONS = {
    **{rule: lambda rule=rule: lif(rule) for rule in RULES},
    "hard": lambda: fastsnn.LIF(v_threshold=0.4, v_reset=0.125, rule="sltt"),
    "ots": lambda: lif("ottt", threshold="ots"),
    "empf-I": lambda: fastsnn.EMPF(T, threshold=0.1),
    "empf-II": lambda: fastsnn.EMPF(T, "II", channels=7, threshold=0.1),
}


def write_slice(neuron, keep):
    neuron.v[~keep] = 0.25


def write_in_place(neuron, keep):
    neuron.v.masked_fill_(~keep.unsqueeze(1), 0.25)


def write_data(neuron, keep):
    neuron.v.data[~keep] = 0.25


def write_numpy(neuron, keep):
    neuron.v.numpy()[~keep.numpy()] = 0.25


def assign(neuron, keep):
    neuron.v = torch.where(keep.unsqueeze(1), neuron.v, 0.25)


def add(neuron, keep):
    old = neuron.v
    neuron.v += torch.where(keep.unsqueeze(1), 0.0, 0.25 - neuron.v)
    assert neuron.v is old or neuron.v.data_ptr() == old.data_ptr()


WRITES = {f.__name__: f for f in (write_slice, write_in_place, write_data, write_numpy, assign, add)}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", NEURONS)
@torch.no_grad()
def test_writes_into_v_take_effect(name, write):
    neuron, x, keep = NEURONS[name](), current(3, N, 7), torch.tensor([True, False, True, False])
    neuron(x[0])
    neuron(x[1])
    twin = copy.deepcopy(neuron)
    WRITES[write](neuron, keep)
    twin.v = torch.where(keep.unsqueeze(1), twin.v.clone(), 0.25)
    assert_same(neuron.v, twin.v)
    assert_same(plain(neuron(x[2])), plain(twin(x[2])))
    assert_same(neuron.v, twin.v)


@pytest.mark.parametrize("name", NEURONS)
def test_writes_between_forward_and_backward_leave_the_gradient(name):
    gradients = []
    for writes in (False, True):
        neuron, x = NEURONS[name](), torch.linspace(-1, 2, 7 * N).view(N, 7).requires_grad_()
        loss = plain(neuron(x)).sum()
        if writes:
            with torch.no_grad():
                neuron.v.fill_(9.0)
        loss.backward()
        gradients.append(x.grad)
    assert_same(*gradients)
    assert gradients[0].any()


def test_a_write_under_bptt_has_a_gradient():
    neuron, x = lif("bptt"), current(2, N, 7).requires_grad_()
    neuron(x[0])
    neuron.v[0] = 0.0
    neuron(x[1])
    (g,) = torch.autograd.grad(neuron.v.sum(), x)
    assert not g[0, 0].any()
    assert g[0, 1:].any()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_reading_v_changes_nothing(rule, large):
    x = current(4, memory.WORTH_ASKING + 5 if large else 41)
    reads, other = lif(rule), lif(rule)
    for x_t in x:
        assert_same(plain(reads(x_t)), plain(other(x_t)))
        assert reads.v is not None
        assert_same((reads.trace, reads.state.ratio), (other.trace, other.state.ratio))
    assert_same(reads.v, other.v)


@pytest.mark.parametrize("rule", [r for r in RULES if not RULES[r].soft_reset])
@torch.no_grad()
def test_numbers_are_as_in_spikingjelly(rule):
    x = current(3, N, 7)
    neuron, other = fastsnn.LIF(rule=rule), sj.LIFNode()
    for start in (0.25, 0.0, 0.5):
        for node in (neuron, other):
            node.v = start
        assert neuron.v == start
        for x_t in x:
            assert_same(plain(neuron(x_t)), other(x_t))
            assert_same(neuron.v, other.v, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("mode", ["s", "m"])
@torch.no_grad()
def test_v_may_be_assigned_what_it_is(name, mode):
    neuron, other, x = NEURONS[name](), NEURONS[name](), current(T, N, 7)
    neuron.step_mode = other.step_mode = mode
    neuron.v = neuron.v
    for x_t in x if mode == "s" else [x]:
        assert_same(plain(neuron(x_t)), plain(other(x_t)))
        neuron.v = neuron.v


def test_a_number_may_be_saved_and_copied():
    neuron = lif()
    neuron.v = 0.25
    saved = fastsnn.states(neuron)
    fastsnn.reset(neuron)
    fastsnn.load_states(neuron, saved)
    copy.deepcopy(neuron)(current(3, 7))
    assert neuron.double().v == 0.25


@pytest.mark.parametrize("value", [None, "0", True, [0.0]])
def test_other_values_are_refused(value):
    neuron = lif()
    neuron(current(3, 7))
    before = fastsnn.states(neuron)
    with pytest.raises(TypeError, match=r"v is .*it must be a number"):
        neuron.v = value
    assert_same(fastsnn.states(neuron), before)


def test_version_three_has_no_potential_to_assign():
    with pytest.raises(ValueError, match="version 'III' has no potential"):
        fastsnn.EMPF(T, "III").v = 0.5


@pytest.mark.parametrize("rule", TRACED)
def test_a_write_into_a_trace_that_a_graph_needs_is_not_silent(rule):
    neuron, linear = lif(rule), nn.Linear(7, 2)
    y = linear(neuron(current(N, 7)))
    neuron.trace[0] = 0.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("rule", TRACED)
@torch.no_grad()
def test_writes_into_the_trace_take_effect(rule):
    neuron, x = lif(rule), current(2, N, 7)
    neuron(x[0])
    neuron.trace[0] = 0.0
    s = neuron(x[1])
    assert_same(s.trace[0], s.spikes[0])


def test_v_seq_keeps_what_was():
    neuron = lif("sltt", store_v_seq=True)
    neuron(current(N, 7))
    before = neuron.v_seq.clone()
    neuron.v[:] = 7.0
    assert_same(neuron.v_seq, before)
    whole = lif("bptt", store_v_seq=True, step_mode="m")
    whole(current(T, N, 7).requires_grad_())
    before = whole.v_seq.detach().clone()
    whole.v[:] = 7.0
    assert_same(whole.v_seq.detach(), before)


# single samples


def trained(rule, x, restarts, step_mode="s", **kwargs):
    """Spikes, trace and gradient of every step, a sequence [N] restarting at the steps of `restarts` {t: mask}."""
    torch.manual_seed(0)
    neuron, x = lif(rule, step_mode=step_mode, **kwargs), x.clone().requires_grad_()
    rows = []
    for t, x_t in enumerate(x):
        if t in restarts:
            fastsnn.reset(neuron, restarts[t])
        s = neuron(x_t if step_mode == "s" else x_t.unsqueeze(0))
        rows.append((plain(s), s.trace if rule in TRACED else plain(s)))
    spikes, traces = (torch.stack(part).view(x.shape) for part in zip(*rows, strict=True))
    (gradient,) = torch.autograd.grad((spikes * torch.arange(1.0, 1 + len(x)).view(-1, 1, 1)).sum(), x)
    return spikes.detach(), traces.detach(), gradient


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("features", [7, memory.WORTH_ASKING // N + 5], ids=["small", "large"])
def test_a_sample_that_starts_anew_is_one_of_a_new_sequence(rule, features):
    x, mask = current(T, N, features), torch.tensor([True, False, False, True])
    got = trained(rule, x, {3: mask})
    for part, whole, rest in zip(got, trained(rule, x, {}), trained(rule, x[3:], {}), strict=True):
        assert_same(part[:, ~mask], whole[:, ~mask])
        if part is got[2]:
            # the loss weighs the steps of the rest otherwise
            assert part[3:, mask].any()
        else:
            assert_same(part[3:, mask], rest[:, mask])
            assert_same(part[:3], whole[:3])


@pytest.mark.parametrize("rule", ["ottt", "sltt", "bptt", "ndot_released"])
def test_samples_start_anew_between_calls_of_step_mode_m(rule):
    x, mask = current(T, N, 7), torch.tensor([True, False, False, True])
    assert_same(trained(rule, x, {2: mask}, "m"), trained(rule, x, {2: mask}))


def test_gradient_of_bptt_stops_at_the_restart():
    x, mask = current(2, N, 7).requires_grad_(), torch.tensor([True, False, False, True])
    neuron = lif("bptt")
    neuron(x[0])
    fastsnn.reset(neuron, mask)
    neuron(x[1])
    (g,) = torch.autograd.grad(neuron.v.sum(), x)
    assert not g[0, mask].any()
    assert g[0, ~mask].any()


def test_restarts_of_ndot_survive_copies_and_files():
    x, mask = current(T, N, 7), torch.tensor([True, False, False, True])
    neuron = lif("ndot")
    for x_t in x[:3]:
        neuron(x_t)
    fastsnn.reset(neuron, mask)
    other, file = lif("ndot"), io.BytesIO()
    torch.save(fastsnn.states(neuron), file)
    file.seek(0)
    fastsnn.load_states(other, torch.load(file))
    others = [other, copy.deepcopy(neuron)]
    for x_t in x[3:]:
        s = neuron(x_t)
        for twin in others:
            again = twin(x_t)
            assert_same((again.spikes, again.trace), (s.spikes, s.trace))


def test_a_sequence_of_ndot_cannot_restart_single_samples():
    neuron, x = lif("ndot", step_mode="m"), current(2, N, 7)
    neuron(x)
    saved = fastsnn.states(neuron)
    fastsnn.load_states(neuron, saved)
    neuron(x)
    fastsnn.reset(neuron, torch.tensor([True, False, False, True]))
    with pytest.raises(RuntimeError, match=r"rule 'ndot' can do that in step_mode 's'"):
        neuron(x)


def test_a_sample_that_starts_anew_has_a_new_mask():
    torch.manual_seed(0)
    neuron, mask = lif(dropout=0.5), torch.tensor([True, False, False, True])
    neuron(current(N, 64))
    before = neuron.state.keep.clone()
    fastsnn.reset(neuron, mask)
    assert_same(neuron.state.keep[~mask], before[~mask])
    assert not torch.equal(neuron.state.keep[mask], before[mask])


def test_before_the_first_step_there_is_nothing_to_reset():
    net = nn.Sequential(lif(), fastsnn.EMPF(T), fastsnn.OSR1d(7, 2), lif(threshold="ots"))
    fastsnn.reset(net, torch.tensor([True, False]))
    assert fastsnn.states(net)["0"]["potential"] is None


TOGETHER = {
    "EMPF": lambda: fastsnn.EMPF(T),
    "OSR1d": lambda: fastsnn.OSR1d(7, 3),
    "ThresholdStabilizer": lambda: lif(threshold="ots"),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_layers_whose_samples_share_a_count_refuse_and_nothing_changes(name):
    net = nn.Sequential(lif(), TOGETHER[name]())
    net[1](plain(net[0](current(N, 7))))
    before = fastsnn.states(net)
    with pytest.raises(ValueError, match=rf"{name} counts steps .*fastsnn\.reset\(net\) without a mask"):
        fastsnn.reset(net, torch.tensor([True, False, False, True]))
    assert_same(fastsnn.states(net), before)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.tensor([1, 0, 0, 1]), TypeError, "must be a bool tensor"),
        ([True, False, False, True], TypeError, "must be a bool tensor"),
        (torch.ones(N, 7, dtype=torch.bool), TypeError, "must be a bool tensor"),
        (torch.ones(3, dtype=torch.bool), ValueError, r"mask has 3 samples and the state has shape \(4, 7\)"),
    ],
    ids=["integers", "list", "matrix", "length"],
)
def test_masks_that_do_not_fit(mask, error, message):
    net = nn.Sequential(lif())
    net(current(N, 7))
    before = fastsnn.states(net)
    with pytest.raises(error, match=message):
        fastsnn.reset(net, mask)
    assert_same(fastsnn.states(net), before)


# steps in evaluation


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("features", [7, memory.WORTH_ASKING], ids=["small", "large"])
def test_a_step_in_evaluation_leaves_what_training_goes_on_with(rule, dropout, features):
    torch.manual_seed(0)
    neuron, x = lif(rule, dropout=dropout), current(3, N, features)
    neuron(x[0])
    before = fastsnn.states(neuron)[""]
    neuron.eval()(x[1])
    after = fastsnn.states(neuron)[""]
    kept = ("trace", "ratio", "keep")
    assert_same([after[name] for name in kept], [before[name] for name in kept])
    assert not torch.equal(after["potential"], before["potential"])
    neuron.train()(x[2])


def test_a_step_in_evaluation_is_spikingjellys():
    ours, theirs = fastsnn.LIF.for_rule("ottt"), sj.OTTTLIFNode()
    x = current(5, N, 7)
    for t, x_t in enumerate(x):
        training = t not in (2, 3)
        s = ours.train(training)(x_t)
        other = theirs.train(training)(x_t)
        assert_same(plain(s), other[0] if training else other)
        assert_same(ours.v, theirs.v)
        if training:
            assert_same(s.trace, other[1])


# memory of others


@pytest.mark.parametrize("rule", ONLINE)
@pytest.mark.parametrize("source", ["numpy", "dlpack", "buffer"])
@torch.no_grad()
def test_memory_of_other_libraries_is_not_taken(rule, source):
    n = memory.WORTH_ASKING + 3
    array = torch.rand(n).numpy()
    given = {
        "numpy": torch.from_numpy,
        "dlpack": torch.from_dlpack,
        "buffer": lambda a: torch.frombuffer(a, dtype=torch.float32),
    }
    neuron, before = lif(rule), array.copy()
    neuron.v = given[source](array)
    neuron(current(n))
    neuron(current(n))
    assert (array == before).all()


@pytest.mark.parametrize("n", [100, memory.WORTH_ASKING + 3])
@pytest.mark.parametrize("rule", ONLINE)
def test_a_shared_state_is_not_written_by_another_process(rule, n):
    torch.set_num_threads(1)  # a child has none of its parent's threads, and would wait for them
    neuron, x = lif(rule), torch.full((n,), 0.6)
    with torch.no_grad():
        neuron(x)
        neuron.share_memory()
        before = fastsnn.states(neuron)
        pid = os.fork()
        if pid == 0:
            neuron(3 * x)
            os._exit(0)
        os.waitpid(pid, 0)
    assert_same(fastsnn.states(neuron), before)


@pytest.mark.parametrize("n", [8, memory.WORTH_ASKING + 8])
@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("reads", [False, True])
def test_training_goes_on_from_a_step_under_inference_mode(name, mode, n, reads):
    rows = []
    for context in (torch.no_grad, torch.inference_mode):
        torch.manual_seed(0)
        neuron = NEURONS[name]() if name != "empf-II" else fastsnn.EMPF(T, "II", channels=n)
        x = torch.rand(T, 2, n)
        neuron.step_mode = mode
        steps = [x] if mode == "m" else x
        if name.startswith("empf") and mode == "m":
            neuron.steps = T
        with context():
            neuron.eval()(steps[0])
            if reads:
                assert neuron.v is not None
        if name.startswith("empf") and mode == "m":
            fastsnn.reset(neuron)
        x = steps[-1].clone().requires_grad_()
        plain(neuron.train()(x)).sum().backward()
        rows.append(x.grad)
    assert_same(*rows)
