"""Spiking transformers: sizes of the paper, the online gradient of attention, memory that does not grow with T."""

import statistics

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import fastsnn
from fastsnn import models, online
from fastsnn.models.transformer import (
    SCALE,
    THRESHOLD,
    Masked,
    SpikeDrivenAttention,
    SpikingAttention,
    TokenAttention,
    by_head,
)

LAM = 0.5
LOW = 0.2  # a threshold at which little networks fire


SIZES = [
    ("spikformer", {}, 4.15e6),
    ("spikformer", {"channels": 384, "heads": 12}, 9.32e6),
    ("spike_driven_transformer", {"num_classes": 100}, 10.28e6),
    ("spike_driven_transformer", {"depth": 6, "channels": 512, "poolings": 4, "num_classes": 1000}, 23.37e6),
    ("spike_driven_transformer", {"depth": 8, "channels": 768, "poolings": 4, "num_classes": 1000}, 66.34e6),
    ("qkformer", {"num_classes": 100}, 6.74e6),
    ("qkformer", {"channels": 384, "depths": (1, 2, 7), "stem": "imagenet", "num_classes": 1000}, 16.47e6),
    ("qkformer", {"channels": 512, "depths": (1, 2, 7), "stem": "imagenet", "num_classes": 1000}, 29.08e6),
    ("qkformer", {"channels": 768, "depths": (1, 2, 7), "stem": "imagenet", "num_classes": 1000}, 64.96e6),
]


def idle_biases(net):
    """Of 1x1 convolutions but q, k, v and shortcuts: the released code has them, a norm takes them away."""
    named = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)}
    return sum(m.out_channels for name, m in named.items() if not name.endswith(("q.0", "k.0", "v.0", "shortcut.0")))


@pytest.mark.parametrize(("name", "options", "parameters"), SIZES, ids=lambda value: str(value))
def test_sizes_are_those_of_the_papers(name, options, parameters):
    """As many digits as their tables print (Zhou et al. 2023, Yao et al. 2023, Zhou et al. 2024)."""
    with torch.device("meta"):
        net = models.create_model(name, norm="bn", **options)
    assert sum(p.numel() for p in net.parameters()) + idle_biases(net) == pytest.approx(parameters, abs=5e3)


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

    def masked(self, name, mask, spikes):
        product = mask * spikes
        self.a[name] = (LAM * self.a.get(name, 0) + product).detach()
        return product, self.a[name]


def spiking_by_hand(attention, hand, x):
    """Zhou et al. 2023, eq. 6 to 9."""
    into = hand.fire("x", x)
    q, k, v = (hand.fire(n, hand.synapse(getattr(attention, n)[0], into), LOW)[0] for n in "qkv")
    q, k, v = (by_head(s, attention.heads) for s in (q, k, v))
    pair = hand.fire("attention", ((v @ (k.transpose(-2, -1) @ q)) * SCALE).reshape(x.shape), THRESHOLD)
    return hand.fire("proj", hand.synapse(attention.proj[0], pair), LOW)[0]


def token_by_hand(attention, hand, x):
    """QKTA of Zhou et al. 2024."""
    into = hand.fire("x", x)
    q, k = (hand.fire(n, hand.synapse(getattr(attention, n)[0], into), LOW)[0] for n in "qk")
    q, k = (by_head(s, attention.heads) for s in (q, k))
    mask, _ = hand.fire("mask", q.sum(2, keepdim=True), THRESHOLD)
    pair = [half.reshape(x.shape) for half in hand.masked("masked", mask, k)]
    return hand.fire("proj", hand.synapse(attention.proj[0], pair), LOW)[0]


def spike_driven_by_hand(attention, hand, x):
    """SDSA of Yao et al. 2023, behind the neurons of a membrane shortcut."""
    first = hand.fire("first", hand.fire("x", x)[0], LOW)
    q, k, v = (hand.fire(n, hand.synapse(getattr(attention, n)[0], first), LOW)[0] for n in "qkv")
    mask, _ = hand.fire("mask", (q * k).sum((2, 3), keepdim=True), THRESHOLD)
    return hand.synapse(attention.proj[0], hand.masked("masked", mask, v))


ATTENTIONS = {
    "spiking-1": (lambda style: SpikingAttention(4, 1, style), spiking_by_hand),
    "spiking-2": (lambda style: SpikingAttention(4, 2, style), spiking_by_hand),
    "token-1": (lambda style: TokenAttention(4, 1, style), token_by_hand),
    "token-2": (lambda style: TokenAttention(4, 2, style), token_by_hand),
    "spike-driven": (lambda style: SpikeDrivenAttention(4, style), spike_driven_by_hand),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_has_the_gradient_of_two_passes(name):
    """Synapses before and behind a product take their weight gradient from traces, the product is differentiated as it
    stands; a mask that goes into weights at once has a trace of its own."""
    make, by_hand = ATTENTIONS[name]
    torch.manual_seed(2)
    style = models.Style("ottt", "none", None, {"v_threshold": LOW})
    attention = make(style).double()
    with torch.no_grad():
        for p in attention.parameters():
            p.mul_(3)
    first = fastsnn.LIF.for_rule("ottt").double()
    x = 3 * torch.rand(3, 2, 4, 3, 3, dtype=torch.float64)
    weight = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    hand = TwoPass()
    outputs = []
    for x_t in x:
        outputs.append(fastsnn.nn.plain(attention(first(x_t))))
        (outputs[-1] * weight).sum().backward()
    expected = {name: p.grad.clone() for name, p in attention.named_parameters()}
    attention.zero_grad()
    for x_t, output in zip(x, outputs, strict=True):
        out = by_hand(attention, hand, x_t)
        assert output.abs().sum() > 0
        assert_close(out, output, atol=1e-10, rtol=1e-10)
        (out * weight).sum().backward()
    for name, p in attention.named_parameters():
        assert p.grad.abs().sum() > 0, name
        assert_close(expected[name], p.grad, atol=1e-10, rtol=1e-10)


def test_a_mask_decays_with_the_neurons_and_starts_anew_for_some_samples():
    style = models.Style("ottt", "none", None, {"tau": 4.0})
    masked = Masked(style)
    ones, half = torch.ones(2, 3), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert_close(masked(ones, half).trace, half)
    kept = fastsnn.states(masked)
    assert_close(masked(half, ones).trace, 1.75 * half)
    fastsnn.load_states(masked, kept)
    fastsnn.reset(masked, torch.tensor([True, False]))
    assert_close(masked(ones, ones).trace, torch.stack([ones[0], 1 + 0.75 * half[1]]))
    with pytest.raises(ValueError, match="mask has 3 samples"):
        fastsnn.reset(masked, torch.zeros(3, dtype=torch.bool))
    fastsnn.reset(masked)
    assert_close(masked(ones, half).trace, half)
    assert not isinstance(masked.eval()(ones, half), fastsnn.nn.TracedSpikes)


@pytest.mark.parametrize("name", ["qkformer", "spike_driven_transformer"])
@pytest.mark.parametrize("rule", ["ndot", "ndot_released"])
def test_a_trace_of_potentials_has_no_mask(name, rule):
    with pytest.raises(ValueError, match=f"rule is '{rule}'.*allowed here: bptt, sltt, ottt"):
        models.create_model(name, rule=rule)


SMALL = {"channels": 16, "in_channels": 1}
NETWORKS = {
    "spikformer": {"depth": 1, "heads": 2, "poolings": 0},
    "qkformer": {"depths": (1, 1, 1), "heads": 2},
    "spike_driven_transformer": {"depth": 1, "poolings": 0},
}


LEARN = [("spikformer", rule, mode) for rule in ("ottt", "sltt", "ndot") for mode in ("O", "A")]
LEARN += [(name, "ottt", "O") for name in ("qkformer", "spike_driven_transformer")]
FIRST, *OTHERS = LEARN


@pytest.mark.parametrize(
    ("name", "rule", "mode"), [FIRST, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)]
)
def test_a_small_one_learns(name, rule, mode):
    torch.manual_seed(0)
    net = models.create_model(name, rule=rule, norm="sws", **SMALL, **NETWORKS[name])
    optimizer = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9)
    x, y = torch.randn(8, 1, 6, 6).expand(3, -1, -1, -1, -1), torch.arange(8)
    losses = [online.train_batch(net, x, y, optimizer, mode=mode).loss for _ in range(40)]
    assert statistics.median(losses[-10:]) < 0.6 * losses[0]


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


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rule", ["ottt", "sltt", "bptt"])
def test_the_memory_of_graphs_is_flat_in_t_but_for_bptt(rule, name):
    sizes = []
    for steps in (4, 16):
        torch.manual_seed(0)
        net = models.create_model(name, rule=rule, norm="osr", steps=steps, **SMALL, **NETWORKS[name])
        sizes.append(saved_bytes(net, steps))
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
    for options, said in (
        ({"heads": 7}, "channels is 96 and heads is 7"),
        ({"depths": (1, 2)}, r"depths \(1, 2\); channels must be a multiple of 8, depths three numbers"),
        ({"stem": "mnist"}, "stem is 'mnist'; allowed: cifar, imagenet"),
    ):
        with pytest.raises(ValueError, match=said):
            models.create_model("qkformer", **options)


def test_a_maximum_of_traced_spikes_stays_refused_before_a_synapse():
    """Why the patches are pooled by their average."""
    net = nn.Sequential(fastsnn.LIF.for_rule("ottt"), nn.MaxPool2d(2), nn.Conv2d(2, 2, 1))
    with pytest.raises(fastsnn.TraceError):
        net(torch.rand(1, 2, 4, 4))
