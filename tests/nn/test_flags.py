"""Flags take bools alone; surrogates that change are read anew."""

import copy

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import surrogate as sj
from torch import nn

import fastsnn

from ..cases import assert_same, current, in_a_graph

FLAGS = {
    "decay_input": lambda value: fastsnn.LIF(decay_input=value),
    "detach_reset": lambda value: fastsnn.LIF(detach_reset=value),
    "store_v_seq": lambda value: fastsnn.LIF(store_v_seq=value),
    "fixed_threshold": lambda value: fastsnn.LIF.for_rule("sltt", threshold="ots", fixed_threshold=value),
    "fixed_threshold, constant": lambda value: fastsnn.LIF(fixed_threshold=value),
    "per_channel": lambda value: fastsnn.EMPF(2, channels=3, per_channel=value),
    "strict": lambda value: fastsnn.OSR1d(3, 2, strict=value),
    "strict, fused": lambda value: fastsnn.OSRLIF(3, 2, strict=value),
    "scale": lambda value: fastsnn.BinaryLinear(3, 4, scale=value),
    "scale, conv": lambda value: fastsnn.BinaryConv2d(3, 4, 3, scale=value),
    "propagate": lambda value: fastsnn.online.MPDR(0.0, 1.0, 0.5, propagate=value),
    "decay_input, functional": lambda value: fastsnn.functional.lif_step(torch.ones(2), decay_input=value),
    "detach_reset, functional": lambda value: fastsnn.functional.lif_sequence(torch.ones(2, 2), detach_reset=value),
    "store_v_seq, functional": lambda value: fastsnn.functional.lif_sequence(torch.ones(2, 2), store_v_seq=value),
}


@pytest.mark.parametrize("value", ["no", "False", 1, 0, None, np.True_])
@pytest.mark.parametrize("name", FLAGS)
def test_flags_take_bools_alone(name, value):
    flag = name.split(",")[0]
    for good in (True, False):
        if not (good and name == "fixed_threshold, constant"):
            FLAGS[name](good)
    with pytest.raises(TypeError, match=rf"{flag} is .*True or False"):
        FLAGS[name](value)


@pytest.mark.parametrize("name", ["decay_input", "detach_reset", "store_v_seq"])
def test_flags_are_checked_when_they_are_assigned(name):
    neuron = fastsnn.LIF()
    before = getattr(neuron, name)
    with pytest.raises(TypeError, match=f"{name} is 'no'"):
        setattr(neuron, name, "no")
    assert getattr(neuron, name) is before
    setattr(neuron, name, not before)
    assert getattr(neuron, name) is (not before)


def test_spikingjellys_older_order_of_arguments_is_named():
    with pytest.raises(TypeError, match=r"store_v_seq is 'torch'.*before version 2 has `backend` in its place"):
        fastsnn.LIF(2.0, True, 1.0, 0.0, fastsnn.surrogate.Sigmoid(), False, "s", "torch")


def test_alpha_is_no_flag():
    with pytest.raises(ValueError, match="alpha of Sigmoid is True"):
        fastsnn.surrogate.Sigmoid(True)


def gradient(neuron, x):
    x = x.clone().requires_grad_()
    fastsnn.reset(neuron)
    fastsnn.nn.plain(neuron(x)).sum().backward()
    return x.grad


@pytest.mark.parametrize("rule", ["bptt", "ottt"])
@pytest.mark.parametrize("kind", ["Sigmoid", "ATan", "Erf"])
def test_the_alpha_of_spikingjellys_surrogate_may_be_annealed(kind, rule):
    given = getattr(sj, kind)()
    neuron, x = fastsnn.LIF(surrogate_function=given, rule=rule), current(3, 7)
    twin = copy.deepcopy(neuron)
    assert not [*neuron.children()]
    for alpha in (1.0, 2.5, 7.0):
        given.alpha = alpha
        expected = gradient(fastsnn.LIF(surrogate_function=getattr(fastsnn.surrogate, kind)(alpha), rule=rule), x)
        assert_same(gradient(neuron, x), expected)
        neuron.surrogate_function.alpha = 0.5 * alpha
        twin.surrogate_function.alpha = 0.5 * alpha
        assert_same(gradient(twin, x), gradient(neuron, x))


def test_an_annealed_surrogate_in_a_graph():
    torch._dynamo.reset()
    given, x = sj.Sigmoid(4.0), current(3, 7)
    neuron = fastsnn.LIF(surrogate_function=given, rule="sltt", step_mode="m")
    net = torch.compile(neuron, backend="aot_eager", fullgraph=True)
    for alpha in (4.0, 1.5):
        given.alpha = alpha
        if alpha != 4.0:
            with pytest.raises(Exception, match=in_a_graph(r"surrogate_function changed.*assign it again")):
                net(x.unsqueeze(0))
            neuron.surrogate_function = given
        leaf = x.unsqueeze(0).clone().requires_grad_()
        fastsnn.reset(neuron)
        net(leaf).sum().backward()
        expected = fastsnn.LIF(surrogate_function=fastsnn.surrogate.Sigmoid(alpha), rule="sltt")
        assert_same(leaf.grad[0], gradient(expected, x))


def test_a_surrogate_that_stops_spiking_raises():
    given = sj.Sigmoid()
    neuron = fastsnn.LIF(surrogate_function=given)
    given.spiking = False
    with pytest.raises(ValueError, match="spiking=False"):
        neuron(current(3, 7))


def test_a_surrogate_may_be_assigned():
    neuron, x = fastsnn.LIF(), current(3, 7)
    neuron.surrogate_function = sj.ATan(3.0)
    assert_same(gradient(neuron, x), gradient(fastsnn.LIF(surrogate_function=fastsnn.surrogate.ATan(3.0)), x))
    assert isinstance(neuron.surrogate_function, sj.ATan)
    with pytest.raises(TypeError, match="surrogate_function is"):
        neuron.surrogate_function = nn.ReLU()
    assert isinstance(neuron.surrogate_function, sj.ATan)
