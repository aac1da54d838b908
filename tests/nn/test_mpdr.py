"""MPDR in networks: which weights it reaches, and what it tells."""

import itertools

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.nn import plain
from fastsnn.online import MPDR

from ..cases import ONLINE, assert_same, current

TARGET = {"mean": -0.3, "std": 0.8, "weight": 3.0}
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def network(rule, mpdr, norm=False):
    """Two regularised layers of convolutions and one linear."""
    torch.manual_seed(1)

    def neuron():
        return fastsnn.LIF.for_rule(rule, v_threshold=0.4, mpdr=mpdr)

    layers = [
        nn.Conv2d(2, 4, 3, padding=1),
        *([nn.BatchNorm2d(4)] if norm else []),
        neuron(),
        fastsnn.Scale(),
        nn.AvgPool2d(2),
        fastsnn.WSConv2d(4, 6, 3),
        neuron(),
        nn.Flatten(),
        nn.Linear(24, 5),
        neuron(),
        nn.Linear(5, 3),
    ]
    return nn.Sequential(*layers).double()


def images(T=3):
    return current(T, 3, 2, 8, 8, dtype=torch.float64)


def trained(net, x):
    """Gradients of a loss over all steps, one backward a step."""
    fastsnn.reset(net)
    net.zero_grad()
    for x_t in x:
        plain(net(x_t)).square().sum().backward()
    return [p.grad.clone() for p in net.parameters()]


def penalty(u):
    target = torch.distributions.Normal(*torch.tensor([TARGET["mean"], TARGET["std"]], dtype=u.dtype))
    own = torch.distributions.Normal(u.mean(), u.std(correction=0))
    return TARGET["weight"] * (torch.distributions.kl_divergence(own, target) + 0.01 * u.var(correction=0))


def explicit(rule, x, propagate):
    """The same by autograd: the plain network, and each layer's own loss on u = lam*v + x, in one backward a step.
    A layer's loss alone reaches its own synapse only."""
    net = network(rule, None)
    neurons = [m for m in net if isinstance(m, fastsnn.LIF)]
    synapses = [m for m in net if isinstance(m, (nn.Conv2d, nn.Linear))][:-1]
    total = [torch.zeros_like(p) for p in net.parameters()]
    before = [0.0] * len(neurons)
    for x_t in x:
        outputs = list(itertools.accumulate(net, lambda value, layer: layer(value), initial=x_t))
        loss = plain(outputs[-1]).square().sum()
        currents = [value for value, layer in zip(outputs, net, strict=False) if layer in neurons]
        penalties = [penalty(n._params.leak * v + x) for n, v, x in zip(neurons, before, currents, strict=True)]
        add(total, torch.autograd.grad(loss, [*net.parameters()], retain_graph=True))
        for synapse, own in zip(synapses, penalties, strict=True):
            some = [*net.parameters()] if propagate else [*synapse.parameters()]
            found = torch.autograd.grad(own, some, retain_graph=True, allow_unused=True)
            by_parameter = dict(zip(some, found, strict=True))
            add(total, [by_parameter.get(p) for p in net.parameters()])
        before = [neuron.v.detach() for neuron in neurons]
    return total


def add(total, gradients):
    for t, g in zip(total, gradients, strict=True):
        if g is not None:
            t += g


@pytest.mark.parametrize("propagate", [False, True], ids=["own", "all"])
@pytest.mark.parametrize("rule", ONLINE)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_gradients_are_those_of_the_explicit_loss(backend, rule, propagate):
    x = images()
    with fastsnn.use_backend(backend):
        found = trained(network(rule, MPDR(**TARGET, propagate=propagate)), x)
        truth = explicit(rule, x, propagate)
    assert_same(found, truth, **CLOSE)
    assert not torch.allclose(found[0], trained(network(rule, None), x)[0])


@pytest.mark.parametrize("propagate", [False, True], ids=["own", "all"])
@pytest.mark.parametrize("rule", ONLINE)
def test_one_late_backward_equals_one_a_step(rule, propagate):
    x, net = images(), network(rule, MPDR(**TARGET, propagate=propagate))
    expected = trained(net, x)
    fastsnn.reset(net)
    loss = sum(plain(net(x_t)).square().sum() for x_t in x)
    for _ in range(2):
        net.zero_grad()
        loss.backward(retain_graph=True)
        assert_same([p.grad for p in net.parameters()], expected, **CLOSE)


@pytest.mark.parametrize("rule", ONLINE)
def test_propagation_changes_lower_layers_and_no_others(rule):
    x = images()
    own, every = (trained(network(rule, MPDR(**TARGET, propagate=p)), x) for p in (False, True))
    changed = [not torch.allclose(a, b) for a, b in zip(own, every, strict=True)]
    # conv, WS conv and its gain; the linear before the last neuron and the readout take the same from both
    assert changed == [True] * 5 + [False] * 4


@pytest.mark.parametrize("rule", ONLINE)
def test_the_gradient_of_the_input_is_the_losss_alone(rule):
    results = []
    for mpdr in (None, MPDR(**TARGET)):
        torch.manual_seed(0)
        synapse, first = nn.Linear(7, 5).double(), fastsnn.LIF.for_rule(rule, mpdr=mpdr)
        x = current(4, 7, dtype=torch.float64).requires_grad_()
        out = plain(fastsnn.LIF.for_rule(rule, mpdr=mpdr)(synapse(first(x))))
        results.append(torch.autograd.grad(out.square().sum() + out.sum(), x))
    # x feeds a neuron without a synapse: the first neuron's own loss is in its gradient, the second's is not
    alone = fastsnn.LIF.for_rule(rule, mpdr=MPDR(**TARGET, propagate=True))
    leaf = x.detach().requires_grad_()
    (own,) = torch.autograd.grad(plain(alone(leaf)), leaf, torch.zeros(4, 7, dtype=torch.float64))
    assert_same(results[1][0], results[0][0] + own, rtol=1e-10, atol=1e-12)


def test_a_gradient_left_by_another_backward_is_not_used():
    net = nn.Sequential(fastsnn.LIF.for_rule("ottt", mpdr=MPDR(**TARGET)), nn.Linear(7, 5)).double()
    last = fastsnn.LIF.for_rule("ottt", mpdr=MPDR(**TARGET))
    y = net(current(4, 7, dtype=torch.float64).requires_grad_())
    out = plain(last(y))
    torch.autograd.grad(out.sum(), y, retain_graph=True)  # ends before the synapse
    (found,) = torch.autograd.grad(y.sum(), net[1].weight, retain_graph=True)
    (expected,) = torch.autograd.grad(y.sum(), net[1].weight, retain_graph=True)
    assert_same(found, expected)
    assert_same(found, net[0].trace.sum(0).expand(5, 7), rtol=1e-12)


def test_two_neurons_behind_one_synapse_both_count():
    x, grads = current(4, 7, dtype=torch.float64), []
    for copies in (1, 2):
        torch.manual_seed(0)
        net = nn.Sequential(fastsnn.LIF.for_rule("sltt", mpdr=MPDR(**TARGET)), nn.Linear(7, 5)).double()
        y = net(x)
        neurons = [fastsnn.LIF.for_rule("sltt", mpdr=MPDR(**TARGET)) for _ in range(copies)]
        (0 * sum(plain(neuron(y)).sum() for neuron in neurons)).backward()
        grads.append(net[1].weight.grad)
    assert grads[0].any()
    assert_same(grads[1], 2 * grads[0], rtol=1e-12)


def test_a_norm_behind_the_first_synapse_is_part_of_its_layer():
    own, every = (trained(network("sltt", MPDR(**TARGET, propagate=p), norm=True), images()) for p in (False, True))
    assert own[2].any()
    assert not torch.allclose(own[0], every[0])


def test_what_lies_between_synapse_and_neuron_is_refused():
    make = lambda: fastsnn.LIF.for_rule("sltt", mpdr=MPDR(**TARGET))  # noqa: E731
    x = torch.randn(4, 7)
    net = nn.Sequential(nn.Linear(7, 5), make(), nn.Linear(5, 5), nn.BatchNorm1d(5), make())
    with pytest.raises(RuntimeError, match="comes from NativeBatchNormBackward0"):
        net(x)
    net = nn.Sequential(nn.Linear(7, 5), fastsnn.LIF.for_rule("sltt"), nn.Linear(5, 5), make())
    with pytest.raises(RuntimeError, match="comes from AddmmBackward0"):
        net(x)
    with torch.no_grad():
        assert net(x).shape == (4, 5)


def test_bptt_needs_propagate():
    with pytest.raises(ValueError, match="propagate=True"):
        fastsnn.LIF(mpdr=MPDR(**TARGET))(torch.randn(7))


def test_bptt_in_steps_is_the_sequence():
    x, grads = current(4, 3, 7, dtype=torch.float64), []
    for mode in ("s", "m"):
        layer = fastsnn.LIF(step_mode=mode, mpdr=MPDR(**TARGET, propagate=True))
        leaf = x.clone().requires_grad_()
        out = layer(leaf) if mode == "m" else torch.stack([layer(x_t) for x_t in leaf])
        grads.append(torch.autograd.grad(out.square().sum(), leaf)[0])
    assert_same(grads[1], grads[0], rtol=1e-12, atol=1e-14)


def test_loss_and_z_score_of_the_last_call():
    layer = fastsnn.LIF.for_rule("sltt", mpdr=MPDR(**TARGET, propagate=True))
    assert layer.moments is layer.mpdr_loss is layer.z_score is None
    x = torch.randn(3, 4, 50, dtype=torch.float64)
    v = torch.zeros(4, 50, dtype=torch.float64)
    for x_t in x:
        layer(x_t)
        u = 0.5 * v + x_t
        v = torch.where(u >= 1, u - 1, u)
        assert_same(layer.mpdr_loss * TARGET["weight"], penalty(u).unsqueeze(0), rtol=1e-12)
        assert_same(layer.z_score, ((1 - u.mean()) / u.std(correction=0)).unsqueeze(0), rtol=1e-12)
    layer.step_mode = "m"
    layer.reset()
    layer.eval()(x)
    assert layer.mpdr_loss.shape == layer.z_score.shape == (3,)
    layer.reset()
    assert layer.moments is None


def test_weight_0_changes_no_gradient():
    x = images()
    found = trained(network("ottt", MPDR(0.0, 1.0, 0.0)), x)
    assert_same(found, trained(network("ottt", None), x))


def test_torch_compile_refuses_what_needs_autograds_nodes():
    layer = torch.compile(fastsnn.LIF.for_rule("sltt", mpdr=MPDR(**TARGET)), fullgraph=True)
    with pytest.raises(Exception, match=r"propagate=False.*pass propagate=True, or train outside of torch\.compile"):
        layer(torch.randn(7))
    x = torch.randn(7)
    assert_same(layer.eval()(x), (x >= 1).float())


def test_bad_argument():
    with pytest.raises(TypeError, match="MPDR"):
        fastsnn.LIF(mpdr=0.1)
