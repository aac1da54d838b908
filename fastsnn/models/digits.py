"""Small networks for the digits."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..nn import EMPF, LIF, OSRLIF, Scale, WSConv2d, WSLinear
from ..nn.osr import VanillaBN
from ..ops.mpdr import MPDR
from ..surrogate import Sigmoid
from .residual import EMPFBlock

# the same neuron for every rule, also for "bptt", whose LIF has SpikingJelly's defaults
SOFT: dict[str, Any] = {"decay_input": False, "v_reset": None}


def digits_conv(rule: str = "ottt", classes: int = 10, width: int = 32, mpdr: MPDR | None = None) -> nn.Sequential:
    """Three weight-standardised 3x3 convolutions with LIF neurons for [N, 1, 8, 8], after Xiao et al. 2022's VGG."""
    return nn.Sequential(
        WSConv2d(1, width, 3, padding=1),
        LIF.for_rule(rule, **SOFT, mpdr=mpdr),
        Scale(),
        WSConv2d(width, 2 * width, 3, padding=1),
        LIF.for_rule(rule, **SOFT, mpdr=mpdr),
        Scale(),
        nn.AvgPool2d(2),
        WSConv2d(2 * width, 2 * width, 3, padding=1),
        LIF.for_rule(rule, **SOFT, mpdr=mpdr),
        Scale(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, classes),
    )


def digits_empf(
    steps: int,
    version: str = "I",
    seca: str | None = None,
    classes: int = 10,
    width: int = 32,
    conv: Any = nn.Conv2d,
    parallel: bool = False,
) -> nn.Sequential:
    """Two residual blocks with EM-PF neurons for [N, 1, 8, 8], after Hao et al. 2024's ResNet-18.

    Arguments as EMPFBlock; the first convolution and the classifier are not of class `conv`, as in the paper."""
    wide, options = 2 * width, {"version": version, "seca": seca, "conv": conv, "parallel": parallel}
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        EMPF(steps, version, width),
        EMPFBlock(width, wide, steps, stride=2, **options),
        EMPFBlock(wide, wide, steps, **options),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * wide, classes),
    )


def digits_mlp(rule: str = "ottt", classes: int = 10, width: int = 256, mpdr: MPDR | None = None) -> nn.Sequential:
    """8-256-256-10 feed-forward network for one row of 8 pixels a step: only its potentials remember."""
    return nn.Sequential(
        WSLinear(8, width),
        LIF.for_rule(rule, **SOFT, mpdr=mpdr),
        Scale(),
        WSLinear(width, width),
        LIF.for_rule(rule, **SOFT, mpdr=mpdr),
        Scale(),
        nn.Linear(width, classes),
    )


def _normed(
    synapse: Any, steps: int, norm: str, rule: str, threshold: str | None, v_reset: float | None
) -> list[nn.Module]:
    """A synapse, its normalisation and its neurons, with the surrogate of Zhu et al. 2024."""
    channels = len(synapse.weight)
    neuron = {**SOFT, "v_reset": v_reset, "surrogate_function": Sigmoid(4.0), "threshold": threshold}
    if norm == "osr":
        return [synapse, OSRLIF.for_rule(rule, channels, steps, **neuron)]
    return [synapse, VanillaBN(channels, steps), LIF.for_rule(rule, **neuron)]


def digits_conv_normed(
    steps: int,
    norm: str,
    rule: str = "sltt",
    classes: int = 10,
    width: int = 32,
    threshold: str | None = None,
    v_reset: float | None = None,
) -> nn.Sequential:
    """digits_conv with normalised currents in place of standardised weights.

    norm "osr": online spiking renormalisation over the `steps` of a sequence, fused with the neuron; "bn": the vanilla
    batch normalisation that Zhu et al. 2024 compare with (appendix C). threshold as LIF's. v_reset: None, the soft
    reset of their released code, which made their tables; 0.0, the hard reset that they print (eq. 4, algorithm 1).
    """
    wide, kind = 2 * width, (steps, norm, rule, threshold, v_reset)
    return nn.Sequential(
        *_normed(nn.Conv2d(1, width, 3, padding=1, bias=False), *kind),
        *_normed(nn.Conv2d(width, wide, 3, padding=1, bias=False), *kind),
        nn.AvgPool2d(2),
        *_normed(nn.Conv2d(wide, wide, 3, padding=1, bias=False), *kind),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * wide, classes),
    )


def digits_mlp_normed(
    steps: int,
    norm: str,
    rule: str = "sltt",
    classes: int = 10,
    width: int = 256,
    threshold: str | None = None,
    v_reset: float | None = None,
) -> nn.Sequential:
    """digits_mlp with normalised currents in place of standardised weights; arguments as digits_conv_normed."""
    kind = (steps, norm, rule, threshold, v_reset)
    return nn.Sequential(
        *_normed(nn.Linear(8, width, bias=False), *kind),
        *_normed(nn.Linear(width, width, bias=False), *kind),
        nn.Linear(width, classes),
    )
