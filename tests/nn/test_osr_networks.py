"""OSR's network, with OTS and without, as it is initialised, in float64 against the papers' equations by hand."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastsnn
from fastsnn.models.style import Style
from fastsnn.models.vgg import pooled
from fastsnn.nn import plain
from fastsnn.nn.osr import OSR

from ..cases import assert_same
from .two_passes import Fire

T, PLAN, EPS, LAM, TH = 4, (8, 16, "A", 32, 32, "A", 32, 32), 1e-4, 0.5, 0.3
NEAR = {"rtol": 1e-9, "atol": 1e-12}


def network(rule, norm):
    torch.manual_seed(3)
    style = Style(rule, norm, T, {"surrogate_function": fastsnn.surrogate.Sigmoid(4.0), "v_threshold": TH})
    return pooled(PLAN, style, 3, 5).double()


class Normalised:
    """One norm by hand (Zhu et al. 2024, algorithm 1 and the released fallback): x by its own statistics, then moved to
    the running ones by constants."""

    def __init__(self, norm):
        self.gamma, self.beta, self.norm = norm.weight, norm.bias, norm
        self.mean, self.var = norm.running_mean.clone(), norm.running_var.clone()
        self.means, self.squares, self.fell_back = [], [], 0

    def __call__(self, x):
        over = lambda v: v[None, :, None, None]  # noqa: E731
        mu, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        self.means.append(mu.detach())
        self.squares.append((var + mu * mu).detach())
        normal = (x - over(mu)) / over(var + EPS).sqrt()
        ratio = ((var + EPS) / (self.var + EPS)).sqrt().detach()
        if torch.maximum(ratio, 1 / ratio).max() > 20:
            self.fell_back += 1
            return over(self.gamma) * normal + over(self.beta)
        moved = over(ratio) * normal + over((mu.detach() - self.mean) / (self.var + EPS).sqrt())
        return over(self.gamma) * moved + over(self.beta)

    def end(self):
        """Fold the sequence in."""
        mean = torch.stack(self.means).mean(0)
        var = torch.stack(self.squares).mean(0) - mean * mean
        self.mean += 0.1 * (mean - self.mean)
        self.var += 0.1 * (var - self.var)
        self.means, self.squares = [], []


class Neuron:
    """u = lam*v + x, v detached, soft reset of the threshold, which OTS moves with mean and deviation of u."""

    def __init__(self, rule, stabilised):
        self.rule, self.stabilised = rule, stabilised
        self.begin()

    def begin(self):
        self.v, self.a, self.q = 0.0, 0.0, None

    def __call__(self, x):
        u = LAM * self.v + x
        threshold, std = TH, u.std().detach()
        if self.stabilised and std > 0:
            mean = u.mean().detach()
            self.q = (TH - mean) / std if self.q is None else self.q
            threshold = mean + self.q * std
        s = Fire.apply(u - threshold)
        self.v = (u - threshold * s).detach()
        self.a = LAM * self.a + s.detach() if self.rule == "ottt" else s.detach()
        return s, self.a


class ByHand:
    """The whole network; pairs of spikes and what weights take their gradient from."""

    def __init__(self, net, rule, stabilised):
        self.convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
        self.norms = [Normalised(m) for m in net.modules() if isinstance(m, OSR)]
        self.neurons = [Neuron(rule, stabilised) for _ in self.norms]
        self.readout = net[-1]

    def synapse(self, fn, pair, weight, *rest):
        spikes, trace = pair
        of_weights = fn(trace, weight, *rest)
        return fn(spikes, weight.detach(), *rest) + of_weights - of_weights.detach()

    def step(self, x):
        layers = zip(self.convs, self.norms, self.neurons, strict=True)
        pair = x, x
        for entry in PLAN:
            if entry == "A":
                pair = tuple(F.avg_pool2d(half, 2) for half in pair)
                continue
            conv, norm, neuron = next(layers)
            pair = neuron(norm(self.synapse(F.conv2d, pair, conv.weight, None, 1, 1)))
        pair = tuple(half.mean((2, 3)) for half in pair)
        return self.synapse(F.linear, pair, self.readout.weight) + self.readout.bias

    def begin(self):
        for neuron in self.neurons:
            neuron.begin()

    def end(self):
        for norm in self.norms:
            norm.end()


def criterion(logits, y):
    return fastsnn.online.loss(plain(logits), y, T)


@pytest.mark.parametrize("mode", ["A", "O"])
@pytest.mark.parametrize(("rule", "norm"), [*itertools.product(["sltt", "ottt"], ["osr", "osr+ots"])])
def test_training_equals_the_equations(rule, norm, mode):
    """Logits of every step, weights after every update, and the running statistics, over three batches."""
    net, twin = network(rule, norm), network(rule, norm)
    hand = ByHand(twin, rule, norm == "osr+ots")
    optimizers = [torch.optim.SGD(n.parameters(), 0.1, momentum=0.9) for n in (net, twin)]
    for batch in range(3):
        x, y = torch.randn(T, 6, 3, 8, 8, dtype=torch.float64), torch.randint(5, (6,))
        hand.begin()
        for t in range(T):
            outputs = net(x[t]), hand.step(x[t])
            assert_same(*(plain(o).detach() for o in outputs), **NEAR)
            for output in outputs:
                criterion(output, y).backward()
            assert_same(*([p.grad for p in n.parameters()] for n in (net, twin)), **NEAR)
            if mode == "O" or t == T - 1:
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
        fastsnn.reset(net)
        hand.end()
        found = [m for m in net.modules() if isinstance(m, OSR)]
        assert_same([m.running_mean for m in found], [n.mean for n in hand.norms], **NEAR)
        assert_same([m.running_var for m in found], [n.var for n in hand.norms], **NEAR)
        assert_same([*net.parameters()], [*twin.parameters()], **NEAR)
        if batch == 0:
            # at initialisation currents shrink layer by layer, below a twentieth of the running deviation
            steps = sum(n.fell_back for n in hand.norms)
            assert 0 < steps < T * len(hand.norms)
