"""Spiking transformers, trained online: attention is a product of spikes, a current with a spatial gradient and no
trace; the neurons behind it begin a trace anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from .registry import register
from .style import Residual, Style

__all__ = ["SpikingAttention", "spikformer"]

SCALE, THRESHOLD = 0.125, 0.5  # of attention and of the neurons behind it (Zhou et al. 2023)


def spikes(style: Style, channels: int) -> nn.Module:
    """A norm and neurons whose spikes are 0 and 1 under weight standardisation, too."""
    fire = style.fire(channels)
    return fire[0] if style.standardised and isinstance(fire, nn.Sequential) else fire


class SpikingAttention(nn.Module):
    """Spiking self-attention (Zhou et al. 2023, eq. 6 to 9): LIF(q k^T v * 0.125), threshold 0.5, over the positions
    of [N, C, H, W], and a 1x1 convolution with neurons. q, k and v are spikes; there is no softmax.

    Raises ValueError for channels that are no multiple of heads.
    """

    def __init__(self, channels: int, heads: int, style: Style) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels is {channels} and heads is {heads}; each head takes as many channels")
        self.heads = heads
        self.q, self.k, self.v = (
            nn.Sequential(style.conv(channels, channels, 1), spikes(style, channels)) for _ in range(3)
        )
        self.fire = replace(style, neuron={**style.neuron, "v_threshold": THRESHOLD}).lif()
        self.proj = nn.Sequential(style.conv(channels, channels, 1), style.fire(channels))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._by_head(part(x)) for part in (self.q, self.k, self.v))  # [N, heads, d, L]
        current = (v @ (k.transpose(-2, -1) @ q)) * SCALE
        return self.proj(self.fire(current.reshape(x.shape)))

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], self.heads, -1, x.shape[2] * x.shape[3])


def mlp(channels: int, ratio: int, style: Style) -> nn.Sequential:
    inner = ratio * channels
    first = (style.conv(channels, inner, 1), style.fire(inner))
    return nn.Sequential(*first, style.conv(inner, channels, 1), style.fire(channels))


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


@register
def spikformer(
    rule: str = "ottt",
    norm: str = "osr",
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

    rule, norm, steps: of `Style`. poolings: how many of the four patch convolutions halve the size, 2 (CIFAR) to 4
    (ImageNet). neuron: further arguments of `fastsnn.LIF`. [N, C, H, W] a step; logits [N, num_classes]. Raises
    ValueError for what does not fit together.
    """
    if channels % 8 or not 0 <= poolings <= 4 or depth < 1:
        raise ValueError(
            f"channels is {channels}, poolings {poolings}, depth {depth}; channels must be a multiple of 8, poolings "
            "in 0..4, depth at least 1"
        )
    style = Style(rule, norm, steps, neuron)
    layers = patches(style, in_channels, channels, poolings)
    for _ in range(depth):
        layers.append(Residual(SpikingAttention(channels, heads, style), nn.Identity()))
        layers.append(Residual(mlp(channels, mlp_ratio, style), nn.Identity()))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
