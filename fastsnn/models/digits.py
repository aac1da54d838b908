"""Small networks for the digits."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..nn import EMPF, LIF, Scale, WSConv2d, WSLinear
from ..ops.mpdr import MPDR
from .residual import EMPFBlock


def digits_conv(rule: str = "ottt", classes: int = 10, width: int = 32, mpdr: MPDR | None = None) -> nn.Sequential:
    """Three weight-standardised 3x3 convolutions with LIF neurons for [N, 1, 8, 8], after Xiao et al. 2022's VGG."""
    return nn.Sequential(
        WSConv2d(1, width, 3, padding=1),
        LIF.for_rule(rule, mpdr=mpdr),
        Scale(),
        WSConv2d(width, 2 * width, 3, padding=1),
        LIF.for_rule(rule, mpdr=mpdr),
        Scale(),
        nn.AvgPool2d(2),
        WSConv2d(2 * width, 2 * width, 3, padding=1),
        LIF.for_rule(rule, mpdr=mpdr),
        Scale(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, classes),
    )


def digits_empf(
    steps: int, version: str = "I", seca: str | None = None, classes: int = 10, width: int = 32, conv: Any = nn.Conv2d
) -> nn.Sequential:
    """Two residual blocks with EM-PF neurons for [N, 1, 8, 8], after Hao et al. 2024's ResNet-18.

    Arguments as EMPFBlock; the first convolution and the classifier are not of class `conv`, as in the paper."""
    wide = 2 * width
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        EMPF(steps, version, width),
        EMPFBlock(width, wide, steps, stride=2, version=version, seca=seca, conv=conv),
        EMPFBlock(wide, wide, steps, version=version, seca=seca, conv=conv),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * wide, classes),
    )


def digits_mlp(rule: str = "ottt", classes: int = 10, width: int = 256, mpdr: MPDR | None = None) -> nn.Sequential:
    """8-256-256-10 feed-forward network for one row of 8 pixels a step: only its potentials remember."""
    return nn.Sequential(
        WSLinear(8, width),
        LIF.for_rule(rule, mpdr=mpdr),
        Scale(),
        WSLinear(width, width),
        LIF.for_rule(rule, mpdr=mpdr),
        Scale(),
        nn.Linear(width, classes),
    )
