"""VGG networks of the papers: convolutions 3x3, average pooling, a readout that does not fire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .recurrent import Delay
from .registry import register
from .style import Style

__all__ = ["VGGFeedback", "vgg", "vgg11", "vgg13", "vgg_f", "vggsnn"]

# channels of a convolution, or "A": average pooling 2x2
OTTT: tuple[int | str, ...] = (64, 128, "A", 256, 256, "A", 512, 512, "A", 512, 512)
VGG11: tuple[int | str, ...] = (64, "A", 128, "A", 256, 256, "A", 512, 512, "A", 512, 512)
VGG13: tuple[int | str, ...] = (64, 64, "A", 128, 128, "A", 256, 256, "A", 512, 512, "A", 512, 512)


def features(plan: Sequence[int | str], style: Style, in_channels: int) -> list[nn.Module]:
    """Convolution, norm and neuron for every number of channels in `plan`; its spikes are still to be scaled."""
    layers: list[nn.Module] = []
    for entry in plan:
        if isinstance(entry, str):
            layers.append(nn.AvgPool2d(2))
        else:
            layers += [style.conv(in_channels, entry, of_spikes=bool(layers)), style.spikes(entry)]
            in_channels = entry
    return layers


def pooled(plan: Sequence[int | str], style: Style, in_channels: int, num_classes: int) -> nn.Sequential:
    """The features, global average pooling and a linear readout."""
    channels = next(entry for entry in reversed(plan) if isinstance(entry, int))
    readout = head(style, nn.AdaptiveAvgPool2d(1), channels, num_classes)
    return nn.Sequential(*features(plan, style, in_channels), *readout)


def head(style: Style, pooling: nn.Module, in_features: int, num_classes: int) -> list[nn.Module]:
    """Pooling of the last spikes, their factor, and a linear readout."""
    return [pooling, nn.Sequential(nn.Flatten(), style.scale()), nn.Linear(in_features, num_classes)]


@register
def vgg(
    rule: str = "ottt",
    norm: str = "sws",
    num_classes: int = 10,
    in_channels: int = 3,
    steps: int | None = None,
    **neuron: Any,
) -> nn.Sequential:
    """64C3-128C3-AP2-256C3-256C3-AP2-512C3-512C3-AP2-512C3-512C3-GAP-FC (Xiao et al. 2022; 9.27 M parameters with
    norm "sws" and 100 classes).

    rule, norm, steps: of `Style`; neuron: further arguments of `fastsnn.LIF`, such as dropout or mpdr. [N, C, H, W] a
    step, H and W at least 8; logits [N, num_classes].
    """
    return pooled(OTTT, Style(rule, norm, steps, neuron), in_channels, num_classes)


@register
def vgg11(
    rule: str = "sltt",
    norm: str = "bn",
    num_classes: int = 10,
    in_channels: int = 2,
    steps: int | None = 10,
    dropout: float = 0.3,
    **neuron: Any,
) -> nn.Sequential:
    """VGG-11 with average pooling and without its two hidden linear layers, dropout behind every neuron (RPTT,
    appendix A.2.3). Arguments as `vgg`; H and W at least 16."""
    style = Style(rule, norm, steps, {"dropout": dropout, **neuron})
    return pooled(VGG11, style, in_channels, num_classes)


@register
def vgg13(
    rule: str = "sltt",
    norm: str = "bn",
    num_classes: int = 200,
    in_channels: int = 3,
    steps: int | None = 4,
    **neuron: Any,
) -> nn.Sequential:
    """VGG-13 with average and global pooling and one linear layer (9.50 M weights, as in Hao et al. 2024, table 2).
    Arguments as `vgg`; H and W at least 16."""
    return pooled(VGG13, Style(rule, norm, steps, neuron), in_channels, num_classes)


def edge_after_four_poolings(size: int) -> int:
    if size < 16:
        raise ValueError(f"size is {size}; it must be at least 16, for four poolings")
    return size // 16


@register
def vggsnn(
    rule: str = "ottt",
    norm: str = "sws",
    num_classes: int = 10,
    in_channels: int = 2,
    steps: int | None = None,
    size: int = 48,
    **neuron: Any,
) -> nn.Sequential:
    """`vgg` with a pooling more and a linear layer over the positions that are left, for event data of size x size
    (9.26 M weights at 48, as Hao et al. 2024, table 2, count VGG-SNN). Other arguments as `vgg`. Raises ValueError for
    a size below 16."""
    style, edge = Style(rule, norm, steps, neuron), edge_after_four_poolings(size)
    readout = head(style, nn.AvgPool2d(2), 512 * edge * edge, num_classes)
    return nn.Sequential(*features(OTTT, style, in_channels), *readout)


class VGGFeedback(nn.Module):
    """VGG-F (Xiao et al. 2022, section 5.4): from the second step on, a 3x3 convolution of the last feature map of the
    step before, upsampled eight times, is added to the first convolution's output. It starts at zero."""

    def __init__(self, style: Style, num_classes: int, in_channels: int) -> None:
        super().__init__()
        first, *rest = features(OTTT, style, in_channels)
        self.first, self.rest = first, nn.Sequential(*rest)
        self.feedback = style.conv(512, 64, of_spikes=True)
        nn.init.zeros_(self.feedback.weight)
        self.feedback.register_parameter("bias", None)  # nothing comes where nothing fired
        self.delay = Delay(keep_graph=not style.online)
        self.head = nn.Sequential(*head(style, nn.AdaptiveAvgPool2d(1), 512, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of one step [N, C, H, W]."""
        current, last = self.first(x), self.delay.before(x)
        if last is not None:
            current = current + self.feedback(F.interpolate(last, scale_factor=8))
        out = self.delay(self.rest(current))
        return self.head(out)


@register
def vgg_f(
    rule: str = "ottt",
    norm: str = "sws",
    num_classes: int = 10,
    in_channels: int = 3,
    steps: int | None = None,
    **neuron: Any,
) -> VGGFeedback:
    """`vgg` with traced feedback from the last layer to the first (VGG-F, 9.56 M parameters). Arguments as `vgg`; H and
    W must be multiples of 8."""
    return VGGFeedback(Style(rule, norm, steps, neuron), num_classes, in_channels)
