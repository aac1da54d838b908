"""Spiking transformers: sizes of the paper, the online gradient of attention, memory that does not grow with T."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import fastsnn
from fastsnn import models, online
from fastsnn.models.transformer import SCALE, THRESHOLD, SpikingAttention

LAM = 0.5
LOW = 0.2  # a threshold at which little networks fire


@pytest.mark.parametrize(("options", "parameters"), [({}, 4.15e6), ({"channels": 384, "heads": 12}, 9.32e6)])
def test_sizes_are_those_of_the_paper(options, parameters):
    """Zhou et al. 2023, table 2: as many digits as it prints."""
    net = models.create_model("spikformer", norm="bn", **options)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(parameters, abs=1e4)


class TwoPass:
    """Neurons and synapses of OTTT by hand: values on spikes, weight gradients on traces."""

    def __init__(self):
        self.v, self.a = {}, {}

    def fire(self, name, current, threshold=1.0):
        u = current + LAM * self.v.get(name, 0)
        fired = (u >= threshold).to(u.dtype)
        q = torch.sigmoid(4 * (u - threshold))
        self.v[name] = (u - threshold * fired).detach()
        self.a[name] = (LAM * self.a.get(name, 0) + fired).detach()
        return fired + (q - q.detach()), self.a[name]

    def synapse(self, conv, pair):
        spikes, trace = pair
        through = conv._conv_forward(trace, conv.weight, conv.bias)
        return (
            conv._conv_forward(spikes, conv.weight.detach(), None)
            + through
            - through.detach()
            + (0 if conv.bias is None else conv.bias.detach().view(1, -1, 1, 1))
        )


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_has_the_gradient_of_two_passes(heads):
    """Synapses before and behind the product take their weight gradient from traces, the product is differentiated as
    it stands and has no trace of its own."""
    torch.manual_seed(2)
    style = models.Style("ottt", "none", None, {"v_threshold": LOW})
    attention = SpikingAttention(4, heads, style).double()
    with torch.no_grad():
        for p in attention.parameters():
            p.mul_(3)
    first = fastsnn.LIF.for_rule("ottt").double()
    x = 3 * torch.rand(3, 2, 4, 3, 3, dtype=torch.float64)
    weight = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    hand = TwoPass()
    total = 0.0
    for x_t in x:
        (fastsnn.nn.plain(attention(first(x_t))) * weight).sum().backward()
    expected = {name: p.grad.clone() for name, p in attention.named_parameters()}
    attention.zero_grad()
    for x_t in x:
        into = hand.fire("x", x_t)
        q, k, v = (hand.fire(n, hand.synapse(getattr(attention, n)[0], into), LOW)[0] for n in "qkv")
        q, k, v = (s.reshape(2, heads, 4 // heads, 9) for s in (q, k, v))
        current = (v @ (k.transpose(-2, -1) @ q)) * SCALE
        pair = hand.fire("attention", current.reshape(2, 4, 3, 3), THRESHOLD)
        out, _ = hand.fire("proj", hand.synapse(attention.proj[0], pair), LOW)
        total += float(out.detach().sum())
        (out * weight).sum().backward()
    assert total > 0
    for name, p in attention.named_parameters():
        assert p.grad.abs().sum() > 0, name
        assert_close(expected[name], p.grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("mode", ["O", "A"])
@pytest.mark.parametrize("rule", ["ottt", "sltt", "ndot"])
def test_a_small_one_learns(rule, mode):
    torch.manual_seed(0)
    net = models.create_model(
        "spikformer", rule=rule, norm="sws", channels=16, depth=1, heads=2, in_channels=1, poolings=0
    )
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    x, y = torch.randn(8, 1, 6, 6).expand(3, -1, -1, -1, -1), torch.arange(8)
    losses = [online.train_batch(net, x, y, optimizer, mode=mode).loss for _ in range(40)]
    assert losses[-1] < 0.6 * losses[0]


def saved_bytes(net, steps):
    """What graphs keep at the most at one moment of a batch in mode A."""
    alive, peak = 0, 0
    x, y = torch.randn(2, 1, 8, 8).expand(steps, -1, -1, -1, -1), torch.arange(2)

    class Kept:
        def __init__(self, tensor):
            nonlocal alive, peak
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            alive += self.size
            peak = max(peak, alive)

        def __del__(self):
            nonlocal alive
            alive -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        online.train_batch(net, x, y, torch.optim.SGD(net.parameters(), 0.0), mode="A")
    return peak


@pytest.mark.parametrize("rule", ["ottt", "sltt", "bptt"])
def test_the_memory_of_graphs_is_flat_in_t_but_for_bptt(rule):
    sizes = []
    for steps in (4, 16):
        torch.manual_seed(0)
        options = {"norm": "osr", "steps": steps, "channels": 16, "heads": 2, "in_channels": 1, "poolings": 0}
        sizes.append(saved_bytes(models.create_model("spikformer", rule=rule, depth=2, **options), steps))
    grown = sizes[1] / sizes[0]
    assert grown > 3 if rule == "bptt" else grown <= 1.02


def test_heads_and_poolings_that_do_not_fit_are_named():
    for options, said in (
        ({"heads": 3}, "channels is 256 and heads is 3"),
        ({"poolings": 5}, "poolings in 0"),
        ({"channels": 100}, "a multiple of 8"),
    ):
        with pytest.raises(ValueError, match=said):
            models.create_model("spikformer", **options)


def test_a_maximum_of_traced_spikes_stays_refused_before_a_synapse():
    """Why the patches are pooled by their average."""
    net = nn.Sequential(fastsnn.LIF.for_rule("ottt"), nn.MaxPool2d(2), nn.Conv2d(2, 2, 1))
    with pytest.raises(fastsnn.TraceError):
        net(torch.rand(1, 2, 4, 4))
