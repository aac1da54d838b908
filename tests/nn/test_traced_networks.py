"""Networks as their authors write them, in float64, against two passes by hand: outputs and gradients equal to 1e-9."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastsnn

from ..cases import assert_same
from .two_passes import Neuron, Passes, added, conv, linear, norm

STEPS, BATCH = 3, 2
SCALE = 2.74


def lif(rule):
    sigmoid = fastsnn.surrogate.Sigmoid(4.0)
    return fastsnn.LIF.for_rule(rule, tau=1.7, v_threshold=0.4, surrogate_function=sigmoid)


class By:
    """The hand-written side of one network: a neuron for each LIF, asked by layer."""

    def __init__(self, rule):
        self.rule, self.neurons = rule, {}

    def lif(self, layer, x):
        neuron = self.neurons.setdefault(layer, Neuron(1.7, 0.4, self.rule == "ottt"))
        return neuron(x)


def both(fn, x):
    return x.both(fn) if isinstance(x, Passes) else fn(x)


class VGGF(nn.Module):
    """Xiao et al. 2022 with feedback from the last feature map, as their code has it."""

    def __init__(self, rule):
        super().__init__()
        self.first, self.rest = fastsnn.WSConv2d(2, 4, 3, padding=1), nn.ModuleList()
        for c_in, c_out in ((4, 4), (4, 6), (6, 6)):
            self.rest.append(fastsnn.WSConv2d(c_in, c_out, 3, padding=1))
        self.neurons = nn.ModuleList(lif(rule) for _ in range(4))
        self.scale, self.pool = fastsnn.Scale(SCALE), nn.AvgPool2d(2)
        self.feedback = nn.Conv2d(6, 4, 3, padding=1)
        self.up, self.classifier = nn.Upsample(scale_factor=4, mode="nearest"), nn.Linear(6, 3)
        self.fed = None

    def forward(self, x):
        x = self.first(x)
        if self.fed is not None:
            x = x + self.feedback(self.up(self.fed))
        x = self.scale(self.neurons[0](x))
        for i, layer in enumerate(self.rest):
            x = self.scale(self.neurons[i + 1](layer(x)))
            x = self.pool(x) if i < 2 else x
        self.fed = x.clone().detach()
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))

    def by_hand(self, by, x):
        x = conv(x, self.first)
        if by.neurons:
            x = x + conv(both(self.up, by.fed), self.feedback)
        x = both(self.scale, by.lif(0, x))
        for i, layer in enumerate(self.rest):
            x = both(self.scale, by.lif(i + 1, conv(x, layer)))
            x = both(self.pool, x) if i < 2 else x
        by.fed = Passes(x.spikes.detach(), x.trace)
        return linear(both(lambda x: x.mean((2, 3)), x), self.classifier)


WIDTHS = [(4, 4, 1), (4, 4, 1), (4, 5, 2), (5, 5, 1), (5, 6, 2), (6, 6, 1), (6, 7, 2), (7, 7, 1)]


class NFBlock(nn.Module):
    """o = scale*LIF(x/beta); conv2(scale*LIF(conv1(o)))*skip_gain*0.2 + identity, of a plain residual stream."""

    def __init__(self, rule, c_in, c_out, stride, beta):
        super().__init__()
        self.beta, self.scale = beta, fastsnn.Scale(SCALE)
        self.lif1, self.lif2 = lif(rule), lif(rule)
        self.conv1 = fastsnn.WSConv2d(c_in, c_out, 3, stride, 1)
        self.conv2 = fastsnn.WSConv2d(c_out, c_out, 3, padding=1)
        self.skip_gain = nn.Parameter(torch.tensor(0.7))
        self.down = None
        if c_in != c_out:
            self.pool, self.down = nn.AvgPool2d(2), fastsnn.WSConv2d(c_in, c_out, 1)

    def forward(self, x):
        out = self.scale(self.lif1(x / self.beta))
        identity = x if self.down is None else self.down(self.pool(out))
        out = self.conv2(self.scale(self.lif2(self.conv1(out))))
        out = out * (self.skip_gain * 0.2)
        out += identity
        return out

    def by_hand(self, by, x):
        out = both(self.scale, by.lif(self.lif1, x / self.beta))
        identity = x if self.down is None else conv(both(self.pool, out), self.down)
        out = conv(both(self.scale, by.lif(self.lif2, conv(out, self.conv1))), self.conv2)
        return out * (self.skip_gain * 0.2) + identity


class NFResNet18(nn.Module):
    def __init__(self, rule):
        super().__init__()
        self.stem, self.blocks, variance = fastsnn.WSConv2d(2, 4, 3, padding=1), nn.ModuleList(), 1.0
        for c_in, c_out, stride in WIDTHS:
            self.blocks.append(NFBlock(rule, c_in, c_out, stride, variance**0.5))
            variance = (1 if c_in != c_out else variance) + 0.04
        self.last, self.scale, self.classifier = lif(rule), fastsnn.Scale(SCALE), nn.Linear(7, 3)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.scale(self.last(x)).mean((2, 3)))

    def by_hand(self, by, x):
        x = conv(x, self.stem)
        for block in self.blocks:
            x = block.by_hand(by, x)
        return linear(both(lambda x: self.scale(x).mean((2, 3)), by.lif(self.last, x)), self.classifier)


def conv3(c_in, c_out, stride=1):
    return nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)


class Block(nn.Module):
    """torchvision's BasicBlock with spikes. SEW: the identity is added to the spikes; else to the current."""

    def __init__(self, rule, c_in, c_out, stride, sew):
        super().__init__()
        self.sew = sew
        self.conv1, self.bn1, self.lif1 = conv3(c_in, c_out, stride), nn.BatchNorm2d(c_out), lif(rule)
        self.conv2, self.bn2, self.lif2 = conv3(c_out, c_out), nn.BatchNorm2d(c_out), lif(rule)
        self.downsample = None
        if c_in != c_out:
            layers = [nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)]
            self.downsample = nn.Sequential(*layers, *([lif(rule)] if sew else []))

    def forward(self, x):
        identity = x
        out = self.lif1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out = self.lif2(out) if self.sew else out
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return out if self.sew else self.lif2(out)

    def by_hand(self, by, x):
        identity = x
        out = by.lif(self.lif1, norm(conv(x, self.conv1), self.bn1))
        out = norm(conv(out, self.conv2), self.bn2)
        out = by.lif(self.lif2, out) if self.sew else out
        if self.downsample is not None:
            identity = norm(conv(x, self.downsample[0]), self.downsample[1])
            identity = by.lif(self.downsample[2], identity) if self.sew else identity
        out = added(out if self.sew else identity, identity if self.sew else out)
        if self.sew:
            return out
        return by.lif(self.lif2, out)


class ResNet18(nn.Module):
    def __init__(self, rule, sew):
        super().__init__()
        self.conv1, self.bn1, self.lif = conv3(2, 4), nn.BatchNorm2d(4), lif(rule)
        self.blocks = nn.Sequential(*(Block(rule, *widths, sew) for widths in WIDTHS))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(7, 3)

    def forward(self, x):
        x = self.blocks(self.lif(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))

    def by_hand(self, by, x):
        x = by.lif(self.lif, norm(conv(x, self.conv1), self.bn1))
        for block in self.blocks:
            x = block.by_hand(by, x)
        return linear(both(lambda x: torch.flatten(self.avgpool(x), 1), x), self.fc)


class Spikformer(nn.Module):
    """One block of spiking self-attention without softmax, and an MLP, on tokens [N, L, D]."""

    LAYERS = ("q", "k", "v", "proj", "fc1", "fc2")

    def __init__(self, rule, tokens=4, dim=6, heads=2):
        super().__init__()
        self.heads, self.embed, self.embed_lif = heads, nn.Linear(32, dim), lif(rule)
        for name in self.LAYERS:
            c_in, c_out = {"fc1": (dim, 2 * dim), "fc2": (2 * dim, dim)}.get(name, (dim, dim))
            self.add_module(name, nn.Linear(c_in, c_out))
            self.add_module(f"{name}_bn", nn.BatchNorm1d(c_out))
            self.add_module(f"{name}_lif", lif(rule))
        self.attn_lif, self.head = lif(rule), nn.Linear(dim, 3)

    def layer(self, name, x):
        x = getattr(self, name)(x)
        x = getattr(self, f"{name}_bn")(x.transpose(-1, -2)).transpose(-1, -2).contiguous()
        return getattr(self, f"{name}_lif")(x)

    def split(self, x):
        return x.reshape(*x.shape[:2], self.heads, -1).permute(0, 2, 1, 3).contiguous()

    def forward(self, x):
        x = self.embed_lif(self.embed(x.reshape(BATCH, 4, 32)))
        q, k, v = (self.split(self.layer(name, x)) for name in "qkv")
        attn = (q @ k.transpose(-2, -1)) * 0.25
        y = (attn @ v).transpose(1, 2).reshape(x.shape)
        x = x + self.layer("proj", self.attn_lif(y))
        x = x + self.layer("fc2", self.layer("fc1", x))
        return self.head(x.mean(1))

    def layer_by_hand(self, by, name, x):
        y = linear(x, getattr(self, name))
        y = norm(y.transpose(-1, -2), getattr(self, f"{name}_bn")).transpose(-1, -2)
        return by.lif(name, y)

    def by_hand(self, by, x):
        x = by.lif("embed", linear(x.reshape(BATCH, 4, 32), self.embed))
        q, k, v = (self.split(self.layer_by_hand(by, name, x).spikes) for name in "qkv")
        y = (q @ k.transpose(-2, -1) * 0.25 @ v).transpose(1, 2).reshape(x.shape)
        x = added(x, self.layer_by_hand(by, "proj", by.lif("attn", y)))
        x = added(x, self.layer_by_hand(by, "fc2", self.layer_by_hand(by, "fc1", x)))
        return linear(both(lambda x: x.mean(1), x), self.head)


NETWORKS = {
    "vgg_f-ottt": lambda: VGGF("ottt"),
    "nf_resnet18-ottt": lambda: NFResNet18("ottt"),
    "nf_resnet18-sltt": lambda: NFResNet18("sltt"),
    "sew_resnet18-ottt": lambda: ResNet18("ottt", sew=True),
    "sew_resnet18-sltt": lambda: ResNet18("sltt", sew=True),
    "resnet18-sltt": lambda: ResNet18("sltt", sew=False),
    "resnet18-ottt": lambda: ResNet18("ottt", sew=False),
    "spikformer-ottt": lambda: Spikformer("ottt"),
}


def results(net, step):
    """Of a sequence with a backward at every step: outputs and gradients."""
    net.zero_grad()
    generator, outputs = torch.Generator().manual_seed(3), []
    for _ in range(STEPS):
        out = step(2 * torch.randn(BATCH, 2, 8, 8, generator=generator, dtype=torch.float64))
        out.square().sum().backward()
        outputs.append(out.detach())
    return outputs, {name: p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_equals_two_passes_by_hand(name):
    torch.manual_seed(1)
    net, rule = NETWORKS[name]().double(), name.rpartition("-")[2]
    outputs, gradients = results(net, net)
    by = By(rule)
    expected, by_hand = results(net, lambda x: net.by_hand(by, x))
    assert_same(outputs, expected, rtol=1e-9, atol=1e-9)
    assert gradients.keys() == by_hand.keys()
    for parameter, gradient in gradients.items():
        assert gradient.any(), parameter
        assert_same(gradient, by_hand[parameter], rtol=1e-9, atol=1e-9)
