"""Residual networks of the papers, with an online rule in every neuron.

A block begins and ends with a current (pre-activation, membrane shortcut, normalisation-free) or with spikes (spiking,
SEW). STEMS: "cifar" keeps the size; "imagenet" quarters it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import LIF, WSConv2d
from ..nn.weights import SIGMA_H_INVERSE
from .registry import register
from .style import SOFT, Residual, Style

__all__ = [
    "NFBlock",
    "ms_resnet18",
    "ms_resnet34",
    "nf_resnet18",
    "nf_resnet34",
    "preact_resnet18",
    "preact_resnet34",
    "sew_resnet18",
    "sew_resnet34",
    "spiking_resnet18",
    "spiking_resnet19",
    "spiking_resnet34",
]

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)
STEMS = ("cifar", "imagenet")
Block = Callable[[Style, int, int, int], nn.Module]


def check_stem(stem: str) -> None:
    if stem not in STEMS:
        raise ValueError(f"stem is {stem!r}; allowed: {', '.join(STEMS)}")


def stem_conv(style: Style, stem: str, in_channels: int, width: int) -> nn.Conv2d:
    """3x3, or 7x7 with stride 2. Raises ValueError for an unknown stem."""
    check_stem(stem)
    return style.conv(in_channels, width) if stem == "cifar" else style.conv(in_channels, width, 7, 2)


def stem_pool(stem: str) -> nn.Module:
    return nn.AvgPool2d(2) if stem == "imagenet" else nn.Identity()


def blocks(block: Block, style: Style, depths: Sequence[int], widths: Sequence[int], width: int) -> list[nn.Module]:
    """Stages of blocks; every stage but the first halves the size."""
    found = []
    for stage, (depth, out) in enumerate(zip(depths, widths, strict=True)):
        for i in range(depth):
            found.append(block(style, width, out, 2 if stage and not i else 1))
            width = out
    return found


def head(width: int, num_classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)]


class PreActivation(nn.Module):
    """Current to current (He et al. 2016b, as Meng et al. 2023 and RPTT): o = fire(x); out = conv(fire(conv(o))) + x,
    or + conv1x1(o) where channels or size change."""

    def __init__(self, style: Style, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.fire1, self.conv1 = style.fire(in_channels), style.conv(in_channels, out_channels, 3, stride)
        self.fire2, self.conv2 = style.fire(out_channels), style.conv(out_channels, out_channels)
        resized = stride != 1 or in_channels != out_channels
        self.shortcut = style.conv(in_channels, out_channels, 1, stride) if resized else None

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.fire1(x)
        identity = x if self.shortcut is None else self.shortcut(spikes)
        return self.conv2(self.fire2(self.conv1(spikes))) + identity


def preact(
    depths: Sequence[int], style: Style, num_classes: int, in_channels: int, stem: str, widths: Sequence[int]
) -> nn.Sequential:
    first = stem_conv(style, stem, in_channels, widths[0])
    body = blocks(PreActivation, style, depths, widths, widths[0])
    return nn.Sequential(first, stem_pool(stem), *body, style.fire(widths[-1]), *head(widths[-1], num_classes))


def membrane(style: Style, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Current to current, neurons first (MS-ResNet, Hu et al. 2024): norm(conv(lif(norm(conv(lif(x)))))) + x, or
    + norm(conv1x1(x)) where channels or size change."""
    branch = nn.Sequential(
        style.lif(),
        style.conv(in_channels, out_channels, 3, stride),
        style.fire(out_channels),
        style.conv(out_channels, out_channels),
        style.norm2d(out_channels),
    )
    return Residual(branch, downsampled(style, in_channels, out_channels, stride))


def downsampled(style: Style, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The shortcut of a current."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(style.conv(in_channels, out_channels, 1, stride), style.norm2d(out_channels))


def spiking(style: Style, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Spikes to spikes (He et al. 2016a with neurons): fire(conv(fire(conv(s))) + s), norms before the sum."""
    branch = nn.Sequential(
        style.conv(in_channels, out_channels, 3, stride),
        style.fire(out_channels),
        style.conv(out_channels, out_channels),
        style.norm2d(out_channels),
    )
    return nn.Sequential(Residual(branch, downsampled(style, in_channels, out_channels, stride)), style.lif())


def sew(style: Style, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Spikes to sums of spikes (SEW-ADD, Fang et al. 2021): fire(conv(fire(conv(s)))) + s, or + fire(conv1x1(s))."""
    branch = nn.Sequential(
        style.conv(in_channels, out_channels, 3, stride),
        style.fire(out_channels),
        style.conv(out_channels, out_channels),
        style.fire(out_channels),
    )
    if stride == 1 and in_channels == out_channels:
        return Residual(branch, nn.Identity())
    return Residual(branch, nn.Sequential(style.conv(in_channels, out_channels, 1, stride), style.fire(out_channels)))


def membrane_resnet(
    depths: Sequence[int], style: Style, num_classes: int, in_channels: int, stem: str, widths: Sequence[int]
) -> nn.Sequential:
    """Networks whose shortcuts carry currents through."""
    first = [stem_conv(style, stem, in_channels, widths[0]), style.norm2d(widths[0]), stem_pool(stem)]
    body = blocks(membrane, style, depths, widths, widths[0])
    return nn.Sequential(*first, *body, style.lif(), *head(widths[-1], num_classes))


def fired(
    block: Block,
    depths: Sequence[int],
    style: Style,
    num_classes: int,
    in_channels: int,
    stem: str,
    widths: Sequence[int],
) -> nn.Sequential:
    """Networks whose blocks take spikes."""
    width = widths[0]
    first = [stem_conv(style, stem, in_channels, width), style.fire(width), stem_pool(stem)]
    return nn.Sequential(*first, *blocks(block, style, depths, widths, width), *head(widths[-1], num_classes))


class NFBlock(nn.Module):
    """Normalisation-free block (Xiao et al. 2022, appendix C.1; Brock et al. 2021): o = 2.74*LIF(x/beta);
    out = conv2(2.74*LIF(conv1(o)))*skip_gain*alpha + x, or + conv1x1(o) at a transition, after pooling where the size
    is halved. All weights are standardised; skip_gain starts at 0."""

    ALPHA = 0.2

    def __init__(self, in_channels: int, out_channels: int, stride: int, beta: float, **neuron: Any) -> None:
        super().__init__()
        self.beta = beta
        self.lif1, self.lif2 = LIF.for_rule(**SOFT, **neuron), LIF.for_rule(**SOFT, **neuron)
        self.conv1 = WSConv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.conv2 = WSConv2d(out_channels, out_channels, 3, padding=1)
        self.skip_gain = nn.Parameter(torch.zeros(()))
        self.pool = nn.AvgPool2d(stride) if stride != 1 else nn.Identity()
        resized = stride != 1 or in_channels != out_channels
        self.shortcut = WSConv2d(in_channels, out_channels, 1) if resized else None

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif1(x / self.beta) * SIGMA_H_INVERSE
        identity = x if self.shortcut is None else self.shortcut(self.pool(spikes))
        inner = self.lif2(self.conv1(spikes)) * SIGMA_H_INVERSE
        return self.conv2(inner) * (self.skip_gain * self.ALPHA) + identity


def nf_resnet(
    depths: Sequence[int], rule: str, num_classes: int, in_channels: int, stem: str, widths: Sequence[int], neuron: Any
) -> nn.Sequential:
    """beta^2, the variance of a block's input, grows by alpha^2 a block and restarts at 1 + alpha^2 after a
    transition."""
    style = Style(rule, "sws", None, neuron)
    layers: list[nn.Module] = [stem_conv(style, stem, in_channels, widths[0]), stem_pool(stem)]
    width, variance = widths[0], 1.0
    for stage, (depth, out) in enumerate(zip(depths, widths, strict=True)):
        for i in range(depth):
            stride = 2 if stage and not i else 1
            layers.append(NFBlock(width, out, stride, math.sqrt(variance), rule=rule, **neuron))
            transition = stride != 1 or width != out
            variance, width = (1.0 if transition else variance) + NFBlock.ALPHA**2, out
    return nn.Sequential(*layers, LIF.for_rule(rule, **SOFT | neuron), *head(width, num_classes))


Build = Callable[[Sequence[int], Style, int, int, str, Sequence[int]], nn.Sequential]
OF_CIFAR: dict[str, Any] = {"num_classes": 10, "stem": "cifar"}
OF_IMAGENET: dict[str, Any] = {"num_classes": 1000, "stem": "imagenet"}
ARGUMENTS = """

    rule, norm, steps: of `Style`. stem: "cifar" (3x3) or "imagenet" (7x7 with stride 2, then pooling). widths: channels
    of the four stages. neuron: further arguments of `fastsnn.LIF`. [N, C, H, W] a step; logits [N, num_classes].
    Raises ValueError for what does not fit together.
    """


def _resnet(name: str, build: Build, depth: int, what: str, **default: Any) -> Callable[..., nn.Sequential]:
    """A network for `create_model`, with its own defaults."""

    def make(
        rule: str = "sltt",
        norm: str = default["norm"],
        num_classes: int = default["num_classes"],
        in_channels: int = 3,
        steps: int | None = default["steps"],
        stem: str = default["stem"],
        widths: Sequence[int] = WIDTHS,
        **neuron: Any,
    ) -> nn.Sequential:
        style = Style(rule, norm, steps, neuron)
        return build(DEPTHS[depth], style, num_classes, in_channels, stem, widths)

    make.__name__ = make.__qualname__ = f"{name}_resnet{depth}"
    make.__doc__ = f"ResNet-{depth} {what}{ARGUMENTS}"
    return register(make)


def _pair(name: str, build: Build, what: str, **default: Any) -> tuple[Callable[..., nn.Sequential], ...]:
    """ResNet-18 for CIFAR and ResNet-34 for ImageNet."""
    return (
        _resnet(name, build, 18, what, **OF_CIFAR, **default),
        _resnet(name, build, 34, what, **OF_IMAGENET, **default),
    )


_PREACT = "with pre-activation blocks (Meng et al. 2023; RPTT, appendix A.2.3)."
preact_resnet18, preact_resnet34 = _pair("preact", preact, _PREACT, norm="bn", steps=6)
_SPIKING = "with a neuron behind every sum."
spiking_resnet18, spiking_resnet34 = _pair("spiking", partial(fired, spiking), _SPIKING, norm="bn", steps=4)
_SEW = "whose blocks add spikes (SEW-ADD, Fang et al. 2021)."
sew_resnet18, sew_resnet34 = _pair("sew", partial(fired, sew), _SEW, norm="osr", steps=4)
_MS = "with membrane shortcuts (Hu et al. 2024)."
ms_resnet18, ms_resnet34 = _pair("ms", membrane_resnet, _MS, norm="osr", steps=4)


@register
def spiking_resnet19(
    rule: str = "sltt",
    norm: str = "osr",
    num_classes: int = 10,
    in_channels: int = 3,
    steps: int | None = 4,
    widths: Sequence[int] = (128, 256, 512),
    **neuron: Any,
) -> nn.Sequential:
    """ResNet-19 (Zheng et al. 2021; Deng et al. 2022): a first convolution of half the width, stages of 3, 3 and 2
    blocks, a hidden linear layer of 256 neurons.

    Arguments as `preact_resnet18`."""
    style = Style(rule, norm, steps, neuron)
    width = widths[0] // 2
    body = blocks(spiking, style, (3, 3, 2), widths, width)
    first = [style.conv(in_channels, width), style.fire(width)]
    hidden = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 256), style.lif()]
    return nn.Sequential(*first, *body, *hidden, nn.Linear(256, num_classes))


@register
def nf_resnet18(
    rule: str = "ottt",
    num_classes: int = 10,
    in_channels: int = 3,
    stem: str = "cifar",
    widths: Sequence[int] = WIDTHS,
    **neuron: Any,
) -> nn.Sequential:
    """ResNet-18 of normalisation-free blocks. Arguments as `preact_resnet18`; its weights are standardised."""
    return nf_resnet(DEPTHS[18], rule, num_classes, in_channels, stem, widths, neuron)


@register
def nf_resnet34(
    rule: str = "ottt",
    num_classes: int = 1000,
    in_channels: int = 3,
    stem: str = "imagenet",
    widths: Sequence[int] = WIDTHS,
    **neuron: Any,
) -> nn.Sequential:
    """ResNet-34 of normalisation-free blocks (Xiao et al. 2022). Arguments as `preact_resnet18`; its weights are
    standardised."""
    return nf_resnet(DEPTHS[34], rule, num_classes, in_channels, stem, widths, neuron)
