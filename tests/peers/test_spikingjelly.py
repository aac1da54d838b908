"""fastsnn in place of SpikingJelly: same numbers, same handling."""

import pytest
import torch
from torch import nn

import fastsnn

from ..cases import RESETS, assert_same, current

pytest.importorskip("spikingjelly", reason="SpikingJelly is not installed")
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based import surrogate as theirs

CLOSE = {"rtol": 1e-12, "atol": 1e-13}
SHARED = [name for name in fastsnn.surrogate.SURROGATES if hasattr(theirs, name)]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def run(node, x):
    """Everything a user sees of a node that has taken the steps x: outputs, v, v_seq, input gradients."""
    x = x.clone().requires_grad_()
    out = node(x) if node.step_mode == "m" else torch.stack([node(x_t) for x_t in x])
    generator = torch.Generator().manual_seed(1)
    weights = [torch.rand(t.shape, generator=generator, dtype=t.dtype) for t in (out, node.v, node.v_seq)]
    sum((w * t).sum() for w, t in zip(weights, (out, node.v, node.v_seq), strict=True)).backward()
    return out.detach(), node.v.detach(), node.v_seq.detach(), x.grad


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("detach_reset", [False, True], ids=["reset", "detached"])
@pytest.mark.parametrize("decay_input", [True, False], ids=["decay", "plain"])
@pytest.mark.parametrize("v_reset", RESETS.values(), ids=RESETS)
def test_lif_node(v_reset, decay_input, detach_reset, mode):
    config = {"tau": 1.7, "decay_input": decay_input, "v_threshold": 0.8, "v_reset": v_reset}
    config |= {"detach_reset": detach_reset, "step_mode": mode, "store_v_seq": True}
    x = current(5, 4, 7, 3, dtype=torch.float64)
    assert_same(run(fastsnn.LIF(**config), x), run(neuron.LIFNode(**config), x), **CLOSE)


def test_defaults():
    x = current(5, 41, dtype=torch.float64)
    assert_same(run(fastsnn.LIF(store_v_seq=True), x), run(neuron.LIFNode(store_v_seq=True), x), **CLOSE)


@pytest.mark.parametrize("alpha", [0.7, 3.0])
@pytest.mark.parametrize("name", SHARED)
def test_surrogates_of_either_library(name, alpha):
    x = current(5, 41, dtype=torch.float64)
    config = {"step_mode": "m", "store_v_seq": True}
    expected = run(neuron.LIFNode(surrogate_function=getattr(theirs, name)(alpha=alpha), **config), x)
    for module in (theirs, fastsnn.surrogate):
        node = fastsnn.LIF(surrogate_function=getattr(module, name)(alpha=alpha), **config)
        assert_same(run(node, x), expected, **CLOSE)


def test_a_surrogate_that_is_sharpened_between_calls_takes_effect():
    x, surrogate, grads = torch.zeros(1, requires_grad=True), theirs.ATan(alpha=2.0), []
    for surrogate.alpha in (2.0, 8.0):
        spikes = fastsnn.functional.lif_step(x, surrogate_function=surrogate).spikes
        grads += torch.autograd.grad(spikes, x)
    assert grads[0] != grads[1]


@pytest.mark.parametrize("name", SHARED)
def test_surrogates_have_the_same_default_alpha(name):
    assert getattr(fastsnn.surrogate, name)().alpha == getattr(theirs, name)().alpha


def test_at_least_what_spikingjelly_fuses_is_shared():
    assert {"Sigmoid", "ATan", "PiecewiseQuadratic", "PiecewiseExp", "SoftSign", "SuperSpike", "Erf"} <= {*SHARED}


@pytest.mark.parametrize("v_reset", RESETS.values(), ids=RESETS)
@pytest.mark.parametrize("decay_input", [True, False], ids=["decay", "plain"])
def test_slttlif_node(v_reset, decay_input):
    config = {"tau": 1.7, "decay_input": decay_input, "v_reset": v_reset, "store_v_seq": True}
    weight, results = torch.rand(5, 41, dtype=torch.float64), []
    x = current(5, 41, dtype=torch.float64)
    for node in (neuron.SLTTLIFNode(**config), fastsnn.LIF(rule="sltt", **config)):
        leaf = x.clone().requires_grad_()
        spikes = torch.stack([node(x_t) for x_t in leaf])
        results.append((spikes.detach(), node.v.detach(), *torch.autograd.grad(spikes, leaf, weight)))
    assert_same(results[1], results[0], **CLOSE)


def networks():
    """The same OTTT network twice: theirs, ours."""
    layers = [
        nn.Conv2d(2, 4, 3, padding=1),
        None,
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3, groups=2, bias=False),
        None,
        nn.Flatten(),
        nn.Linear(24, 5),
    ]
    pair = []
    for container, node in (
        (layer.OTTTSequential, lambda: neuron.OTTTLIFNode(tau=1.7)),
        (nn.Sequential, lambda: fastsnn.LIF.for_rule("ottt", tau=1.7)),
    ):
        pair.append(container(*(node() if m is None else m for m in layers)))
    pair[1].load_state_dict(pair[0].state_dict())
    return [net.double() for net in pair]


def test_ottt_network():
    weight, results = torch.rand(3, 5, dtype=torch.float64), []
    x = current(5, 3, 2, 8, 8, dtype=torch.float64)
    for net in networks():
        net.zero_grad()
        inputs = x.clone().requires_grad_()
        outputs = [net(x_t) for x_t in inputs]
        sum((weight * out).sum() for out in outputs).backward()
        results.append((torch.stack(outputs).detach(), inputs.grad, *(p.grad.clone() for p in net.parameters())))
    assert results[0][1].any()
    assert_same(results[1], results[0], **CLOSE)


def test_reset_net_and_set_step_mode():
    net = nn.Sequential(nn.Linear(7, 11), fastsnn.LIF(), nn.Linear(11, 3), fastsnn.LIF())
    x = 3 * torch.randn(4, 2, 7)
    by_step = torch.stack([net(x_t) for x_t in x])
    functional.reset_net(net)
    assert [net[1].v, net[3].v] == [0.0, 0.0]
    functional.set_step_mode(net, "m")
    assert_same(net(x), by_step)
    with pytest.raises(ValueError, match="step_mode is 'x'"):
        functional.set_step_mode(net, "x")


def test_detach_net():
    net = nn.Sequential(nn.Linear(7, 11), fastsnn.LIF(store_v_seq=True))
    net(torch.randn(2, 7))
    functional.detach_net(net)
    assert not net[1].v.requires_grad
    assert not net[1].v_seq.requires_grad


@pytest.mark.parametrize(("tau", "threshold"), [(2, 0.5), (3.0, 1), (3, 1)])
def test_integers_are_fine(tau, threshold):
    x = current(3, 41, dtype=torch.float64)
    ours = fastsnn.LIF(tau=tau, v_threshold=threshold, v_reset=0, store_v_seq=True)
    node = neuron.LIFNode(tau=float(tau), v_threshold=float(threshold), store_v_seq=True)
    assert_same(run(ours, x), run(node, x), **CLOSE)
