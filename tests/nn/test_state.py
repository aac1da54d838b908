"""State of a network: scope, copies, moves, and graphs that outlive it."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.types import RULES

from ..cases import assert_same, current


def network(rule="ottt", **kwargs):
    first, second = (fastsnn.LIF.for_rule(rule, v_threshold=0.3, **kwargs) for _ in range(2))
    return nn.Sequential(nn.Linear(7, 11), first, nn.Linear(11, 9), second, nn.Linear(9, 3))


def inputs(T=6):
    return 2 * current(T, 4, 7)


def run(net, x):
    return torch.stack([net(x_t) for x_t in x])


@pytest.fixture(params=RULES)
def net(request):
    return network(request.param)


class Foreign(nn.Module):
    """A module of another library that has a reset of its own."""

    resets = 0

    def reset(self):
        self.resets += 1


def test_reset_starts_a_new_sequence(net):
    x = inputs()
    first = run(net, x)
    continued = run(net, x)
    fastsnn.reset(net)
    assert not torch.equal(continued, first)
    assert_same(run(net, x), first)


def test_reset_reaches_this_net_and_its_own_neurons_only():
    other, foreign = network(), Foreign()
    net = nn.Sequential(network(), foreign)
    run(net[0], inputs())
    run(other, inputs())
    kept = fastsnn.states(other)
    fastsnn.reset(net)
    assert all(state["potential"] is None for state in fastsnn.states(net).values())
    assert_same([*fastsnn.states(other).values()], [*kept.values()])
    assert foreign.resets == 0


def test_detach_cuts_the_graph():
    net = network("bptt")
    x = inputs(2)
    net(x[0])
    assert net[1].v.requires_grad
    fastsnn.detach(net)
    assert not net[1].v.requires_grad
    net(x[1]).sum().backward()
    assert net[0].weight.grad.any()


@pytest.mark.parametrize("mode", ["s", "m"])
def test_detach_reaches_v_seq(mode):
    neuron = fastsnn.LIF(store_v_seq=True, step_mode=mode)
    neuron(current(3, 41).requires_grad_())
    fastsnn.detach(neuron)
    assert not neuron.v_seq.requires_grad


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_saved_states_resume_bitwise(net, dropout):
    net[1].dropout = net[3].dropout = dropout
    x = inputs()
    run(net, x[:3])
    saved = fastsnn.states(net)
    rest = run(net, x[3:])
    fastsnn.reset(net)
    fastsnn.load_states(net, saved)
    assert_same(run(net, x[3:]), rest)
    fastsnn.load_states(net, saved)
    assert_same(run(net, x[3:]), rest)


def test_saved_states_are_named_copies_without_a_graph(net):
    run(net, inputs(2))
    saved = fastsnn.states(net)
    assert saved.keys() == {"1", "3"}
    before = copy.deepcopy(saved)
    run(net, inputs())
    assert_same(saved, before)
    assert not any(state["potential"].requires_grad for state in saved.values())


def test_saved_states_survive_a_file(net):
    x, file = inputs(), io.BytesIO()
    run(net, x[:3])
    torch.save(fastsnn.states(net), file)
    rest = run(net, x[3:])
    file.seek(0)
    fastsnn.load_states(net, torch.load(file))
    assert_same(run(net, x[3:]), rest)


def test_states_of_another_network_are_refused_and_change_nothing(net):
    run(net, inputs(2))
    before = fastsnn.states(net)
    wrong = {"1": before["1"], "7": before["3"]}
    with pytest.raises(KeyError, match=r"missing \['3'\], unknown \['7'\]"):
        fastsnn.load_states(net, wrong)
    assert_same([*fastsnn.states(net).values()], [*before.values()])


@pytest.mark.parametrize("wrong", [{"v": None, "t": 0}, ("v", 0)], ids=["of EMPF", "tuple"])
def test_states_of_another_layer_are_refused_and_change_nothing(net, wrong):
    run(net, inputs(2))
    before = fastsnn.states(net)
    with pytest.raises(ValueError, match=r"saved state of 3 holds .* and LIF keeps \[.*'is_v', 'keep'"):
        fastsnn.load_states(net, {"1": before["1"], "3": wrong})
    assert_same(fastsnn.states(net), before)


def test_state_is_not_in_the_state_dict(net):
    fresh = network().state_dict().keys()
    run(net, inputs(2))
    assert net.state_dict().keys() == fresh


DUPLICATES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
}


@pytest.mark.parametrize("how", DUPLICATES)
def test_copies_go_on_from_the_same_state_on_their_own(net, how):
    x = inputs()
    graph = run(net, x[:3])
    other = DUPLICATES[how](net)
    rest = run(net, x[3:])
    assert_same(run(other, x[3:]), rest)
    assert not any(state["potential"].requires_grad for state in fastsnn.states(other).values())
    graph.sum().backward()


@pytest.mark.parametrize("module", ["types", "stats"])
def test_pickles_of_0_1_load(net, module):
    x = inputs()
    run(net, x[:3])
    kept = net[1]._params, fastsnn.states(net), fastsnn.stats.Moments(*x[:3])
    now, before = (f"c{package}.{module}\n".encode() for package in ("fastsnn", "fastsnn.ops"))
    renamed = pickle.dumps(kept, protocol=0).replace(now, before)
    assert before in renamed
    assert_same(pickle.loads(renamed), kept)


def test_to_moves_the_state(net):
    x = inputs()
    run(net, x[:3])
    net.double()
    assert net[1].v.dtype == torch.float64
    assert run(net, x[3:].double()).dtype == torch.float64
    net.to("meta")
    assert net[1].v.device.type == "meta"


def test_to_moves_v_seq():
    neuron = fastsnn.LIF(store_v_seq=True)
    neuron(current(41))
    neuron.double()(current(41).double())
    assert neuron.v_seq.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_mid_sequence_keeps_the_state_in_float32(net, dtype):
    x = inputs()
    run(net, x[:3])
    net.to(dtype)
    assert net[1].v.dtype == torch.float32
    assert run(net, x[3:].to(dtype)).dtype == dtype


def test_another_batch_size_without_a_reset_raises_and_leaves_the_state(net):
    run(net, inputs(2))
    before = fastsnn.states(net)
    with pytest.raises(ValueError, match=r"state \w+ is \(4, 11\).*needs \(3, 11\).*fastsnn\.reset\(net\)"):
        net(inputs()[0, :3])
    assert_same([*fastsnn.states(net).values()], [*before.values()])
    fastsnn.reset(net)
    net(inputs()[0, :3])


def test_training_and_evaluation_may_alternate(net):
    x = inputs()
    expected = run(net, x)
    fastsnn.reset(net)
    run(net, x[:3])
    saved = fastsnn.states(net)
    run(net.eval(), x[3:])
    fastsnn.load_states(net.train(), saved)
    assert_same(run(net, x[3:]), expected[3:])


def test_data_parallel_replicas():
    fused = fastsnn.LIF(step_mode="m")
    fused(current(3, 41))
    replica = fused._replicate_for_data_parallel()
    assert replica.v == 0.0
    assert isinstance(fused.v, torch.Tensor)
    with pytest.raises(RuntimeError, match=r"step_mode 's'.*step_mode='m'.*DistributedDataParallel"):
        fastsnn.LIF()._replicate_for_data_parallel()
