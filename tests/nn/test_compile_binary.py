"""Binary synapses, trained and packed, inside one graph of torch.compile, against eager."""

import copy

import pytest
import torch
from torch import nn

import fastsnn

from ..cases import assert_same, compiled, current, graphs
from .training import train_by_step

pytestmark = pytest.mark.usefixtures("no_graphs")


def network(scale=True):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        fastsnn.LIF.for_rule("ottt", v_threshold=0.3),
        fastsnn.BinaryConv2d(4, 6, 3, padding=1, scale=scale),
        fastsnn.LIF.for_rule("sltt", v_threshold=0.3),
        nn.Flatten(),
        fastsnn.BinaryLinear(96, 5, scale=scale),
    )


@pytest.mark.parametrize("scale", [False, True])
def test_training_equals_eager(scale):
    x, net, other = current(3, 2, 2, 6, 6), network(scale), network(scale)
    assert_same(train_by_step(other, compiled(other), x), train_by_step(net, net, x))
    assert graphs() == 2  # the neurons' first step, and all others


def test_packed_networks_equal_eager():
    net = network().eval()
    packed = fastsnn.deploy.pack(net)
    step, x = compiled(copy.deepcopy(packed)), current(4, 2, 2, 6, 6)
    with torch.no_grad():
        for x_t in x:
            assert_same(step(x_t), packed(x_t))
    assert graphs() == 2


@pytest.mark.slow
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_inductor_equals_eager_but_for_rounding(layout):
    """inductor builds on the strides that the fake implementation says."""
    layer = fastsnn.BinaryConv2d(3, 4, 3).eval()
    net = nn.Sequential(fastsnn.deploy.pack(layer), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten())
    x = (torch.rand(2, 3, 6, 6) < 0.4).float().contiguous(memory_format=layout)
    assert_same(compiled(net, "inductor")(x), net(x), rtol=1e-6, atol=1e-6)
    weights = [
        torch.autograd.grad(step(x).square().sum(), layer.weight) for step in (layer, compiled(layer, "inductor"))
    ]
    assert_same(weights[1], weights[0], rtol=1e-5, atol=1e-5)


def test_no_recompilation_as_the_batch_changes():
    net = network()
    net = nn.Sequential(net[2], nn.Flatten(), net[5]).eval()
    for layers in (net, fastsnn.deploy.pack(net)):
        step = compiled(layers)
        with torch.no_grad():
            step(torch.ones(3, 4, 4, 4))
            step(torch.ones(5, 4, 4, 4))
            with torch.compiler.set_stance("fail_on_recompile"):
                for batch in (2, 9):
                    x = (torch.rand(batch, 4, 4, 4) < 0.4).float()
                    assert_same(step(x), layers(x))


def test_nan_weights_raise_in_a_graph():
    layer = fastsnn.BinaryLinear(4, 3)
    step = compiled(layer)
    step(torch.ones(2, 4))
    with torch.no_grad():
        layer.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        step(torch.ones(2, 4))
