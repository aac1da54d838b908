"""Networks of Hao et al. 2024: binary convolutions, batch norms, EM-PF neurons. The first convolution and the last
layer are in full precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..nn import EMPF, SECA, BinaryConv2d
from .registry import register
from .residual import EMPFBlock
from .resnet import DEPTHS, WIDTHS, check_stem, head, stem_pool
from .vgg import OTTT, VGG13, edge_after_four_poolings

__all__ = ["empf_resnet18", "empf_resnet34", "empf_vgg13", "empf_vggsnn"]

WEIGHTS: dict[str, Any] = {"binary": BinaryConv2d, "float": nn.Conv2d}


def conv_class(weights: str) -> Any:
    if weights not in WEIGHTS:
        raise ValueError(f"weights is {weights!r}; allowed: {', '.join(WEIGHTS)}")
    return WEIGHTS[weights]


def resnet(
    depths: Sequence[int],
    steps: int,
    num_classes: int,
    in_channels: int,
    stem: str,
    widths: Sequence[int],
    **block: Any,
) -> nn.Sequential:
    """block: options of EMPFBlock."""
    check_stem(stem)
    width = widths[0]
    quarter: dict[str, Any] = {"kernel_size": 7, "stride": 2, "padding": 3}
    size = {"kernel_size": 3, "padding": 1} if stem == "cifar" else quarter
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, width, **size, bias=False),
        nn.BatchNorm2d(width),
        EMPF(steps, block["version"], width),
        stem_pool(stem),
    ]
    for stage, (depth, out) in enumerate(zip(depths, widths, strict=True)):
        for i in range(depth):
            layers.append(EMPFBlock(width, out, steps, stride=2 if stage and not i else 1, **block))
            width = out
    return nn.Sequential(*layers, *head(width, num_classes))


@register
def empf_resnet18(
    steps: int = 4,
    version: str = "I",
    parallel: bool = True,
    seca: str | None = None,
    weights: str = "binary",
    num_classes: int = 10,
    in_channels: int = 3,
    stem: str = "cifar",
    widths: Sequence[int] = WIDTHS,
) -> nn.Sequential:
    """ResNet-18 of `EMPFBlock` (2.82 MB at 2 bits a weight, CIFAR-10, table 2).

    steps: T. version, parallel, seca: as `EMPFBlock`; the paper's usual block is version "I" with parallel neurons
    inside. weights: "binary" or "float". stem: "cifar" (3x3) or "imagenet" (7x7 with stride 2, then pooling).
    [N, C, H, W] a step; logits [N, num_classes]. Raises ValueError for arguments out of range.
    """
    block = {"version": version, "parallel": parallel, "seca": seca, "conv": conv_class(weights)}
    return resnet(DEPTHS[18], steps, num_classes, in_channels, stem, widths, **block)


@register
def empf_resnet34(
    steps: int = 4,
    version: str = "I",
    parallel: bool = True,
    seca: str | None = None,
    weights: str = "binary",
    num_classes: int = 1000,
    in_channels: int = 3,
    stem: str = "imagenet",
    widths: Sequence[int] = WIDTHS,
) -> nn.Sequential:
    """ResNet-34 of `EMPFBlock` (7.40 MB at 2 bits a weight, ImageNet, table 2). Arguments as `empf_resnet18`."""
    block = {"version": version, "parallel": parallel, "seca": seca, "conv": conv_class(weights)}
    return resnet(DEPTHS[34], steps, num_classes, in_channels, stem, widths, **block)


def features(
    plan: Sequence[int | str], steps: int, version: str, weights: str, in_channels: int, seca: str | None = None
) -> list[nn.Module]:
    """Convolution, batch norm, SECA where asked for, and neuron for every number of channels in `plan`."""
    if seca not in (None, "I"):
        raise ValueError(f"seca is {seca!r}; allowed in a VGG: None and 'I'")
    conv: Any = nn.Conv2d
    layers: list[nn.Module] = []
    for entry in plan:
        if isinstance(entry, str):
            layers.append(nn.AvgPool2d(2))
            continue
        layers += [conv(in_channels, entry, 3, padding=1, bias=False), nn.BatchNorm2d(entry)]
        if seca is not None:
            layers.append(SECA(entry, version=seca))
        layers.append(EMPF(steps, version, entry))
        in_channels, conv = entry, conv_class(weights)
    return layers


@register
def empf_vgg13(
    steps: int = 4,
    version: str = "I",
    weights: str = "binary",
    num_classes: int = 200,
    in_channels: int = 3,
    seca: str | None = None,
) -> nn.Sequential:
    """VGG-13 for ImageNet-200 (2.77 MB at 2 bits a weight, table 2; with SECA, table 3). seca: None or "I". Other
    arguments as `empf_resnet18`."""
    return nn.Sequential(*features(VGG13, steps, version, weights, in_channels, seca), *head(512, num_classes))


@register
def empf_vggsnn(
    steps: int = 10,
    version: str = "II",
    weights: str = "binary",
    num_classes: int = 10,
    in_channels: int = 2,
    size: int = 48,
) -> nn.Sequential:
    """VGG-SNN for event data of size x size (2.49 MB at 2 bits a weight, DVS-CIFAR10, table 2). Other arguments as
    `empf_resnet18`. Raises ValueError for a size below 16."""
    edge = edge_after_four_poolings(size)
    layers = features(OTTT, steps, version, weights, in_channels)
    return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(512 * edge * edge, num_classes))
