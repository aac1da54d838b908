"""State memory that is used again, and memory that must not grow with time."""

import copy
import weakref
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import fastsnn
from fastsnn import online
from fastsnn.ops.common import memory
from fastsnn.types import RULES

from ..cases import ONLINE, TRACED, assert_same, current

LARGE = memory.WORTH_ASKING + 13

HOLDERS = {
    "potential": lambda s, neuron: neuron.state.potential,
    "v": lambda s, neuron: neuron.v,
    "spikes": lambda s, neuron: fastsnn.nn.plain(s),
}
TRACE_HOLDERS = {
    "s.trace": lambda s, neuron: s.trace,
    "view of s.trace": lambda s, neuron: s.trace.view(-1, 1),
    "flattened s": lambda s, neuron: s.flatten().trace,
    "neuron.trace": lambda s, neuron: neuron.trace,
    "slice of the state": lambda s, neuron: neuron.state.trace[:5],
}


def overwritten(rule, hold):
    """What `hold` kept of the first step, after three more steps, and its value then."""
    neuron = fastsnn.LIF.for_rule(rule)
    held = hold(neuron(current(LARGE)), neuron)
    value = held.clone()
    for _ in range(3):
        neuron(current(LARGE))
    return held, value


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.parametrize("rule", RULES)
def test_what_is_held_is_never_overwritten(rule, name):
    assert_same(*overwritten(rule, HOLDERS[name]))


@pytest.mark.parametrize("name", TRACE_HOLDERS)
@pytest.mark.parametrize("rule", TRACED)
def test_a_trace_that_is_held_is_never_overwritten(rule, name):
    assert_same(*overwritten(rule, TRACE_HOLDERS[name]))


def test_a_ratio_that_is_held_is_never_overwritten():
    assert_same(*overwritten("ndot", lambda s, neuron: neuron.state.ratio))


@pytest.mark.parametrize("rule", ONLINE)
def test_an_assigned_state_is_never_overwritten(rule):
    neuron, v = fastsnn.LIF.for_rule(rule), current(LARGE)
    value = v.clone()
    neuron.v = v
    for _ in range(3):
        neuron(current(LARGE))
    assert_same(v, value)


@pytest.mark.parametrize("rule", ONLINE)
def test_saved_states_are_never_overwritten(rule):
    neuron = fastsnn.LIF.for_rule(rule)
    neuron(current(LARGE))
    saved = fastsnn.states(neuron)
    value = copy.deepcopy(saved)
    for _ in range(2):
        neuron(current(LARGE))
        fastsnn.load_states(neuron, saved)
        neuron(current(LARGE))
        assert_same(saved, value)


@pytest.mark.parametrize("rule", ONLINE)
def test_what_nothing_holds_is_used_again(rule):
    neuron = fastsnn.LIF.for_rule(rule)
    addresses = set()
    for _ in range(6):
        neuron(current(LARGE).requires_grad_()).sum().backward()
        addresses.add(neuron.state.potential.data_ptr())
    assert len(addresses) == 2  # of the state and of the one before


def steps(neuron, inputs, look=lambda neuron: None):
    """Spikes and gradients of steps with a backward each; look: between two of them."""
    found = []
    for x in inputs:
        x = x.clone().requires_grad_()
        spikes = fastsnn.nn.plain(neuron(x))
        spikes.sum().backward()
        found += [spikes.detach(), x.grad]
        look(neuron)
    return found


@pytest.mark.parametrize("rule", ONLINE)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_in_place_a_state_stays_in_its_memory(rule, dropout):
    inputs, addresses = current(6, LARGE), set()
    neuron, other = (fastsnn.LIF.for_rule(rule, dropout=dropout) for _ in range(2))
    torch.manual_seed(3)
    expected = steps(other, inputs)
    torch.manual_seed(3)
    with memory.in_place():
        found = steps(neuron, inputs, lambda neuron: addresses.add(neuron.state.potential.data_ptr()))
    assert len(addresses) == 1
    assert_same(found, expected)
    assert_same(neuron.state, other.state)


@pytest.mark.parametrize("rule", TRACED)
def test_in_place_what_others_hold_is_never_overwritten(rule):
    inputs, held = current(6, LARGE), []
    neuron, other = fastsnn.LIF.for_rule(rule), fastsnn.LIF.for_rule(rule)
    expected = steps(other, inputs)

    def hold(neuron):
        held.append((neuron.trace, neuron.trace.clone(), neuron.v, neuron.v.clone()))

    with memory.in_place():
        assert_same(steps(neuron, inputs, hold), expected)
    for trace, its_values, v, of_v in held:
        assert_same(trace, its_values)
        assert_same(v, of_v)


@pytest.mark.parametrize("mode", ["O", "A"])
def test_training_keeps_states_in_place(mode):
    neuron, addresses = fastsnn.LIF.for_rule("ottt"), set()
    net = nn.Sequential(nn.Linear(8, LARGE // 4), neuron, nn.Linear(LARGE // 4, 3))
    net[2].register_forward_pre_hook(lambda *_: addresses.add(neuron.state.potential.data_ptr()))
    x, y = torch.randn(6, 4, 8), torch.tensor([0, 1, 2, 0])
    online.train_batch(net, x, y, torch.optim.SGD(net.parameters(), 0.1), mode=mode)
    assert len(addresses) == 1
    addresses.clear()
    online.evaluate(net, [(x, y)])
    assert len(addresses) == 1


class Interrupted(BaseException):
    """What a signal's handler raises."""


@pytest.mark.parametrize("where", ["after the kernel", "before the state is kept"])
@pytest.mark.parametrize("n", [7, LARGE])
@pytest.mark.parametrize("rule", RULES)
def test_a_step_that_is_interrupted_has_not_happened(rule, n, where, monkeypatch):
    neuron, inputs = fastsnn.LIF.for_rule(rule), current(4, n)
    for x in inputs[:3]:
        neuron(x)
    before = copy.deepcopy(neuron.state)

    def interrupted(*_):
        raise Interrupted

    with monkeypatch.context() as patched:
        if where == "after the kernel":
            patched.setattr("fastsnn.ops.lif.state_of", interrupted)
        else:
            patched.setattr(fastsnn.LIF, "_after", interrupted)
        with pytest.raises(Interrupted):
            neuron(inputs[3])
    assert_same(neuron.state, before)
    other = fastsnn.LIF.for_rule(rule)
    assert_same(fastsnn.nn.plain(neuron(inputs[3])), [fastsnn.nn.plain(other(x)) for x in inputs][-1])


def train(loss_of, x, late):
    """Backward of every step's loss at once, or of their sum after the last step."""
    losses = [loss_of(t, x_t) if late else loss_of(t, x_t).backward() for t, x_t in enumerate(x)]
    if late:
        sum(losses).backward()


@pytest.mark.parametrize("rule", ONLINE)
def test_a_late_backward_sees_the_potentials_of_its_step(rule):
    leaves = [current(4, LARGE).requires_grad_()]
    leaves.append(leaves[0].detach().clone().requires_grad_())
    for late, leaf in enumerate(leaves):
        neuron = fastsnn.LIF.for_rule(rule)
        train(lambda t, x_t, neuron=neuron: neuron(x_t).sum(), leaf, late)
    assert_same(leaves[1].grad, leaves[0].grad)


@pytest.mark.parametrize("rule", TRACED)
def test_a_late_backward_sees_the_traces_of_its_step(rule):
    x, grads = current(4, LARGE), []
    for late in (False, True):
        neuron, linear = fastsnn.LIF.for_rule(rule), nn.Linear(LARGE, 2, bias=False)
        train(lambda t, x_t, n=neuron, w=linear: (t + 1) * w(n(x_t)).sum(), x, late)
        grads.append(linear.weight.grad)
    assert_same(grads[1], grads[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", ONLINE)
def test_a_retained_graph_gives_its_gradient_again(rule):
    neuron, x = fastsnn.LIF.for_rule(rule), current(LARGE).requires_grad_()
    loss = neuron(x).sum()
    first = torch.autograd.grad(loss, x, retain_graph=True)
    for _ in range(3):
        neuron(current(LARGE))
    assert_same(torch.autograd.grad(loss, x), first)


def saved_by(fn):
    """Addresses of what autograd saved while `fn` ran, and its result."""
    saved = set()

    def pack(tensor):
        saved.add(tensor.data_ptr())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        return fn(), saved


@pytest.mark.parametrize("rule", ONLINE)
def test_a_step_saves_nothing_but_the_state_it_leaves(rule):
    neuron, x = fastsnn.LIF.for_rule(rule), current(2, 41).requires_grad_()
    neuron(x[0])
    _, saved = saved_by(lambda: neuron(x[1]))
    assert saved == {neuron.state.potential.data_ptr()}


@pytest.mark.parametrize("rule", RULES)
def test_a_sequence_saves_nothing_but_its_input(rule):
    x = current(4, 41).requires_grad_()
    _, saved = saved_by(lambda: fastsnn.LIF.for_rule(rule, step_mode="m")(x))
    assert saved == {x.data_ptr()}


def test_a_traced_synapse_saves_the_trace_and_its_weight():
    s = fastsnn.LIF.for_rule("ottt")(current(3, 41))
    linear = nn.Linear(41, 5)
    _, saved = saved_by(lambda: linear(s))
    assert saved == {s.trace.data_ptr(), linear.weight.data_ptr()}


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 5, 3), nn.Sequential(fastsnn.Scale(), nn.Conv1d(3, 5, 3))], ids=repr)
def test_between_forward_and_backward_live_the_trace_and_the_state(layer):
    """The spikes are freed when the synapse has run, and so are a scaled pair's."""
    neuron, x = fastsnn.LIF.for_rule("ottt"), current(2, 3, 41).requires_grad_()
    neuron(x[:1])
    s = neuron(x[1:])
    pair, spikes = weakref.ref(s), weakref.ref(s.spikes)
    y, saved = saved_by(partial(layer, s))
    del s
    assert pair() is spikes() is None
    assert len(saved) == 2  # trace and weight
    y.sum().backward()


def peak_bytes(rule, T):
    """Most memory allocated at any time of one sequence of training, beyond what was there before."""
    net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), fastsnn.LIF.for_rule(rule), nn.Conv2d(8, 8, 3, padding=1))
    net.extend([fastsnn.LIF.for_rule(rule), nn.Flatten(), nn.Linear(8 * 256, 10)])
    x = current(4, 2, 16, 16)
    total = 0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        for _ in range(T):
            loss = net(x).square().mean()
            total = total + loss if rule == "bptt" else loss.backward()
        if rule == "bptt":
            total.backward()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return sizes.cumsum(0).max().item()


@pytest.mark.parametrize("rule", ONLINE)
def test_training_memory_is_flat_in_time(rule):
    peak_bytes(rule, 2)
    assert peak_bytes(rule, 128) <= 1.02 * peak_bytes(rule, 4)


def test_the_measure_sees_bptt_grow():
    assert peak_bytes("bptt", 16) > 2 * peak_bytes("bptt", 4)
