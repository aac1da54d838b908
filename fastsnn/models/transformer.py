"""Spiking transformers, trained online: attention is a product of spikes, a current with a spatial gradient and no
trace. The neurons behind it begin a trace anew; where a mask of spikes goes into weights at once, `Masked` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..nn import LIF, Stateful, TracedSpikes, plain
from ..nn.state import of_samples
from ..types import RULES
from .registry import register
from .resnet import check_stem, head
from .style import Residual, Style

__all__ = [
    "Masked",
    "SpikeDrivenAttention",
    "SpikingAttention",
    "TokenAttention",
    "qkformer",
    "spike_driven_transformer",
    "spikformer",
]

SCALE, THRESHOLD = 0.125, 0.5  # of attention and of the neurons in it (Zhou et al. 2023; the others' released code)
MASKED = ("bptt", "sltt", "ottt")


def binary(style: Style, neurons: nn.Module) -> nn.Module:
    """Of `style.fire` or `style.lif`: what fires 0 and 1 under weight standardisation, too."""
    return neurons[0] if style.standardised and isinstance(neurons, nn.Sequential) else neurons


def attending(style: Style) -> nn.Module:
    """Neurons of attention."""
    return replace(style, neuron={**style.neuron, "v_threshold": THRESHOLD}).lif()


def projection(style: Style, channels: int) -> nn.Sequential:
    """Spikes q, k or v, 0 and 1."""
    return nn.Sequential(style.conv(channels, channels, 1), binary(style, style.fire(channels)))


def unit(
    style: Style, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, pool: bool = False
) -> nn.Sequential:
    """A convolution, its norm and neurons. pool: a maximum of the currents, which may not be one of spikes, in between
    halves the size."""
    conv = style.conv(in_channels, out_channels, kernel, stride)
    if pool:
        return nn.Sequential(conv, style.norm2d(out_channels), nn.MaxPool2d(3, 2, 1), style.lif())
    return nn.Sequential(conv, style.fire(out_channels))


def check_heads(channels: int, heads: int) -> None:
    if channels % heads:
        raise ValueError(f"channels is {channels} and heads is {heads}; each head takes as many channels")


def by_head(x: Tensor, heads: int) -> Tensor:
    """[N, C, H, W] as [N, heads, C/heads, L]."""
    return x.reshape(x.shape[0], heads, -1, x.shape[2] * x.shape[3])


class SpikingAttention(nn.Module):
    """Spiking self-attention (Zhou et al. 2023, eq. 6 to 9): LIF(q k^T v * 0.125), threshold 0.5, over the positions
    of [N, C, H, W], and a 1x1 convolution with neurons. q, k and v are spikes; there is no softmax.

    Raises ValueError for channels that are no multiple of heads.
    """

    def __init__(self, channels: int, heads: int, style: Style) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads = heads
        self.q, self.k, self.v = (projection(style, channels) for _ in range(3))
        self.fire = attending(style)
        self.proj = unit(style, channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (by_head(part(x), self.heads) for part in (self.q, self.k, self.v))
        current = (v @ (k.transpose(-2, -1) @ q)) * SCALE
        return self.proj(self.fire(current.reshape(x.shape)))


class MaskedState(NamedTuple):
    """a[t] of the product; None at t = 1."""

    trace: Tensor | None = None

    def map(self, fn: Callable[[Tensor], Tensor]) -> MaskedState:
        return self if self.trace is None else MaskedState(fn(self.trace))


class Masked(Stateful):
    """Spikes times a mask of spikes, into the weights behind it. The product p is differentiated as it stands; under
    rule "ottt" its trace is a[t] = lam*a[t-1] + p[t] (equations/ottt.md, eq. 1, with p in place of s).

    Raises ValueError for a rule whose trace needs the potentials of a neuron, which a product has not.
    """

    def __init__(self, style: Style) -> None:
        super().__init__()
        if style.rule not in MASKED:
            raise ValueError(
                f"rule is {style.rule!r}, whose trace needs a neuron's potentials, and a product of spikes has none; "
                f"allowed here: {', '.join(MASKED)} (spikformer takes every rule)"
            )
        self.lam = 1 - 1 / LIF.for_rule(style.rule, **style.neuron).tau
        self.traced = RULES[style.rule].traced()
        self.state = MaskedState()

    def forward(self, mask: Tensor, spikes: Tensor) -> Tensor:
        self._runs()
        product = plain(mask) * plain(spikes)
        if not (self.traced and self.training):
            return product
        fired, before = product.detach(), self.state.trace
        self.state = MaskedState(fired if before is None else fired + self.lam * before)
        return TracedSpikes.of(product, self.state.trace)

    def reset(self) -> None:
        self._met()
        self.state = MaskedState()

    def restarted(self, mask: Tensor) -> MaskedState:
        """The state where the samples of mask [N] are at t = 1. Raises ValueError where mask does not fit."""
        return self.state.map(lambda trace: trace.masked_fill(of_samples(mask, trace), 0))

    def detach(self) -> None:
        """A trace has no graph."""


class TokenAttention(nn.Module):
    """Q-K token attention (QKTA, Zhou et al. 2024): LIF(sum of a position's q over a head's channels),
    threshold 0.5, masks k at that position; a 1x1 convolution with neurons follows. [N, C, H, W] to the same.

    Raises ValueError for channels that are no multiple of heads, and rules as `Masked`.
    """

    def __init__(self, channels: int, heads: int, style: Style) -> None:
        super().__init__()
        check_heads(channels, heads)
        self.heads = heads
        self.q, self.k = (projection(style, channels) for _ in range(2))
        self.fire, self.masked, self.scale = binary(style, attending(style)), Masked(style), style.scale()
        self.proj = unit(style, channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k = (by_head(part(x), self.heads) for part in (self.q, self.k))
        mask = self.fire(plain(q).sum(2, keepdim=True))  # [N, heads, 1, L]
        return self.proj(self.scale(self.masked(mask, k).reshape(x.shape)))


class SpikeDrivenAttention(nn.Module):
    """Spike-driven self-attention of a current (SDSA, Yao et al. 2023): its spikes give q, k and v; LIF(sum of q*k over
    the positions), threshold 0.5, masks the channels of v; a 1x1 convolution and its norm follow. [N, C, H, W] to the
    same, a current again.

    Raises as `Masked`.
    """

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.first = style.lif()
        self.q, self.k, self.v = (projection(style, channels) for _ in range(3))
        self.fire, self.masked, self.scale = binary(style, attending(style)), Masked(style), style.scale()
        self.proj = nn.Sequential(style.conv(channels, channels, 1), style.norm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(x)
        q, k, v = (part(spikes) for part in (self.q, self.k, self.v))
        mask = self.fire((plain(q) * plain(k)).sum((2, 3), keepdim=True))  # [N, C, 1, 1]
        return self.proj(self.scale(self.masked(mask, v)))


def mlp(channels: int, ratio: int, style: Style) -> nn.Sequential:
    """Spikes to spikes."""
    inner = ratio * channels
    return nn.Sequential(*unit(style, channels, inner, 1), *unit(style, inner, channels, 1))


def membrane_mlp(channels: int, ratio: int, style: Style) -> nn.Sequential:
    """Current to current, neurons first."""
    inner = ratio * channels
    first = (style.lif(), style.conv(channels, inner, 1), style.norm2d(inner))
    return nn.Sequential(*first, style.lif(), style.conv(inner, channels, 1), style.norm2d(channels))


def patches(style: Style, in_channels: int, channels: int, poolings: int) -> list[nn.Module]:
    """Four convolutions with neurons, the last ones pooled, and a fifth as relative position (Zhou et al. 2023,
    section 3.1), with average pooling: a maximum of spikes has no trace."""
    layers: list[nn.Module] = []
    for stage, width in enumerate((channels // 8, channels // 4, channels // 2, channels)):
        layers += [style.conv(in_channels, width), style.fire(width)]
        if stage >= 4 - poolings:
            layers.append(nn.AvgPool2d(2))
        in_channels = width
    position = nn.Sequential(style.conv(channels, channels), style.fire(channels))
    return [*layers, Residual(position, nn.Identity())]


def membrane_patches(style: Style, in_channels: int, channels: int, poolings: int) -> list[nn.Module]:
    """The same with a current at the end (Yao et al. 2023). What is pooled is the currents' maximum, before
    the neurons; the paper takes it behind the first three."""
    widths = (in_channels, channels // 8, channels // 4, channels // 2, channels)
    pooled = [stage >= 4 - poolings for stage in range(4)]
    layers: list[nn.Module] = []
    for (a, b), pool in zip(pairwise(widths[:4]), pooled, strict=False):
        layers += unit(style, a, b, pool=pool)
    layers += [style.conv(widths[3], channels), style.norm2d(channels)]
    if pooled[3]:
        layers.append(nn.MaxPool2d(3, 2, 1))
    position = nn.Sequential(style.lif(), style.conv(channels, channels), style.norm2d(channels))
    return [*layers, Residual(position, nn.Identity())]


def check_shape(channels: int, poolings: int, depth: int) -> None:
    if channels % 8 or not 0 <= poolings <= 4 or depth < 1:
        raise ValueError(
            f"channels is {channels}, poolings {poolings}, depth {depth}; channels must be a multiple of 8, poolings "
            "in 0..4, depth at least 1"
        )


@register
def spikformer(
    rule: str = "ottt",
    norm: str = "sws",
    num_classes: int = 10,
    in_channels: int = 3,
    steps: int | None = 4,
    depth: int = 4,
    channels: int = 256,
    heads: int = 8,
    mlp_ratio: int = 4,
    poolings: int = 2,
    **neuron: Any,
) -> nn.Sequential:
    """Spikformer-`depth`-`channels` (Zhou et al. 2023): 4-256 for CIFAR (4.15 M parameters) to 8-768 for ImageNet.

    rule, norm, steps: of `Style`; "sws" (default) was the best on the digits (docs/results.md). poolings: how many of
    the four patch convolutions halve the size, 2 (CIFAR) to 4 (ImageNet). neuron: further arguments of `fastsnn.LIF`.
    [N, C, H, W] a step; logits [N, num_classes]. Raises ValueError for what does not fit together.
    """
    check_shape(channels, poolings, depth)
    style = Style(rule, norm, steps, neuron)
    layers = patches(style, in_channels, channels, poolings)
    for _ in range(depth):
        layers.append(Residual(SpikingAttention(channels, heads, style), nn.Identity()))
        layers.append(Residual(mlp(channels, mlp_ratio, style), nn.Identity()))
    return nn.Sequential(*layers, *head(channels, num_classes))


@register
def spike_driven_transformer(
    rule: str = "ottt",
    norm: str = "sws",
    num_classes: int = 10,
    in_channels: int = 3,
    steps: int | None = 4,
    depth: int = 2,
    channels: int = 512,
    mlp_ratio: int = 4,
    poolings: int = 2,
    **neuron: Any,
) -> nn.Sequential:
    """Spike-driven Transformer-`depth`-`channels` (Yao et al. 2023): 2-512 for CIFAR (10.28 M parameters) to 8-768 for
    ImageNet. Currents are added, neurons come before weights, attention is a mask, whose heads make no difference.

    Arguments, shapes and errors as `spikformer`; rules as `Masked`.
    """
    check_shape(channels, poolings, depth)
    style = Style(rule, norm, steps, neuron)
    layers = membrane_patches(style, in_channels, channels, poolings)
    for _ in range(depth):
        layers.append(Residual(SpikeDrivenAttention(channels, style), nn.Identity()))
        layers.append(Residual(membrane_mlp(channels, mlp_ratio, style), nn.Identity()))
    pooled, flat, logits = head(channels, num_classes)
    return nn.Sequential(*layers, pooled, flat, style.lif(), logits)


def first_embedding(style: Style, kind: str, in_channels: int, width: int) -> list[nn.Module]:
    """Patch embedding of the first stage (Zhou et al. 2024): no pooling, or two."""
    check_stem(kind)
    inner = width // 2
    if kind == "cifar":
        deformed = Residual(unit(style, inner, width), unit(style, inner, width, 1))
        return [*unit(style, in_channels, inner), deformed]
    branch = nn.Sequential(*unit(style, inner, width, pool=True), *unit(style, width, width))
    return [*unit(style, in_channels, inner, pool=True), Residual(branch, unit(style, inner, width, 1, stride=2))]


def embedding(style: Style, kind: str, in_channels: int, width: int) -> nn.Module:
    """Patch embedding with a deformed shortcut, which halves the size: at the second of its convolutions for CIFAR, at
    the first for ImageNet, as the released code has it."""
    first = kind == "imagenet"
    branch = (*unit(style, in_channels, width, pool=first), *unit(style, width, width, pool=not first))
    return Residual(nn.Sequential(*branch), unit(style, in_channels, width, 1, stride=2))


@register
def qkformer(
    rule: str = "ottt",
    norm: str = "sws",
    num_classes: int = 10,
    in_channels: int = 3,
    steps: int | None = 4,
    channels: int = 384,
    depths: Sequence[int] = (1, 1, 2),
    heads: int = 8,
    mlp_ratio: int = 4,
    stem: str = "cifar",
    **neuron: Any,
) -> nn.Sequential:
    """QKFormer (Zhou et al. 2024): three stages of channels/4, channels/2 and channels, Q-K token attention in the
    first two and spiking self-attention in the third: 4-384 for CIFAR (6.74 M parameters, the default); for ImageNet
    10-384 to 10-768 with depths (1, 2, 7).

    depths: blocks of each stage. stem: "cifar", or "imagenet", whose first stage is a quarter of the size. Other
    arguments, shapes and errors as `spikformer`; rules as `Masked`.
    """
    if channels % 8 or len(depths) != 3 or min(depths) < 1:
        raise ValueError(
            f"channels is {channels} and depths {tuple(depths)}; channels must be a multiple of 8, depths three "
            "numbers of at least 1"
        )
    style = Style(rule, norm, steps, neuron)
    widths = (channels // 4, channels // 2, channels)
    layers = first_embedding(style, stem, in_channels, widths[0])
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            layers.append(embedding(style, stem, widths[stage - 1], width))
        kind = SpikingAttention if stage == 2 else TokenAttention
        for _ in range(depth):
            layers.append(Residual(kind(width, heads, style), nn.Identity()))
            layers.append(Residual(mlp(width, mlp_ratio, style), nn.Identity()))
    return nn.Sequential(*layers, *head(channels, num_classes))
