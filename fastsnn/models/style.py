"""How a network's synapses, norms and neurons are made: one choice for all of its layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..nn import LIF, OSRLIF, Scale, WSConv2d, WSLinear
from ..nn.osr import OSR, VanillaBN
from ..nn.weights import SIGMA_H_INVERSE
from ..types import RULES

__all__ = ["NORMS", "Style"]

NORMS = {
    "sws": "weight standardisation, and the factor 2.74 behind every neuron (Xiao et al. 2022, appendix C.1)",
    "osr": "online spiking renormalisation (Zhu et al. 2024)",
    "osr+ots": "OSR and the online threshold stabiliser (Zhu et al. 2024)",
    "bn": "batch normalisation of every step by itself (Zhu et al. 2024, appendix C)",
    "none": "plain synapses with bias",
}
# soft reset and undecayed input, as every paper of an online rule has them, for "bptt" too
SOFT: dict[str, Any] = {"decay_input": False, "v_reset": None}


@dataclass(frozen=True)
class Style:
    """rule: of every neuron. norm: of NORMS. steps: T, which "osr" and "bn" need. neuron: further arguments of LIF.

    Raises ValueError for a rule, norm or steps that do not fit together.
    """

    rule: str = "ottt"
    norm: str = "sws"
    steps: int | None = None
    neuron: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule is {self.rule!r}; allowed: {', '.join(RULES)}")
        if self.norm not in NORMS:
            raise ValueError(f"norm is {self.norm!r}; allowed: {', '.join(NORMS)}")
        if self.counts and self.steps is None:
            raise ValueError(f"norm {self.norm!r} needs steps, the number T of time steps whose statistics it keeps")
        if self.norm == "osr+ots" and self.rule not in ("sltt", "ottt"):
            raise ValueError(f"norm 'osr+ots' takes rule 'sltt' or 'ottt' and rule is {self.rule!r}")

    @property
    def online(self) -> bool:
        """Whether no gradient goes back through time."""
        return RULES[self.rule].online

    @property
    def counts(self) -> bool:
        """Whether the norm counts the steps of a sequence."""
        return self.norm in ("osr", "osr+ots", "bn")

    @property
    def standardised(self) -> bool:
        return self.norm == "sws"

    def conv(
        self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, of_spikes: bool = False
    ) -> nn.Conv2d:
        """Padded to keep the size at stride 1; with a bias where no norm follows. of_spikes: the input comes from
        `spikes`, whose factor is then in the weights."""
        options: dict[str, Any] = {"stride": stride, "padding": kernel // 2, "bias": not self.counts}
        if not self.standardised:
            return nn.Conv2d(in_channels, out_channels, kernel, **options)
        return WSConv2d(in_channels, out_channels, kernel, factor=SIGMA_H_INVERSE if of_spikes else 1.0, **options)

    def linear(self, in_features: int, out_features: int) -> nn.Linear:
        kind = WSLinear if self.standardised else nn.Linear
        return kind(in_features, out_features, bias=not self.counts)

    def norm2d(self, channels: int) -> nn.Module:
        """Of a current that no neuron follows at once; nothing where weights are standardised instead."""
        if not self.counts:
            return nn.Identity()
        assert self.steps is not None
        return VanillaBN(channels, self.steps) if self.norm == "bn" else OSR(channels, self.steps)

    def lif(self) -> nn.Module:
        """A neuron, its output scaled under weight standardisation."""
        return nn.Sequential(self._lif(), self.scale()) if self.standardised else self._lif()

    def _lif(self) -> LIF:
        threshold = {"threshold": "ots"} if self.norm == "osr+ots" else {}
        return LIF.for_rule(self.rule, **SOFT | threshold | self.neuron)

    def scale(self) -> nn.Module:
        """Behind spikes, under weight standardisation."""
        return Scale() if self.standardised else nn.Identity()

    def spikes(self, channels: int) -> nn.Module:
        """As `fire`, unscaled: what comes next scales, or is a `conv` of spikes."""
        return self._lif() if self.standardised else self.fire(channels)

    def fire(self, channels: int) -> nn.Module:
        """A current's norm and the neuron behind it: OSR and LIF are one layer where they are fused."""
        if self.norm == "osr":
            assert self.steps is not None
            return OSRLIF.for_rule(self.rule, channels, self.steps, **SOFT | self.neuron)
        return nn.Sequential(self.norm2d(channels), self.lif()) if self.counts else self.lif()


class Residual(nn.Module):
    """branch(x) + shortcut(x)."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + self.shortcut(x)
