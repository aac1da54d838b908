"""Residual blocks of EM-PF networks (Hao et al. 2024, section 4.3 and figure 3)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..nn import EMPF, SECA

__all__ = ["EMPFBlock"]


class EMPFBlock(nn.Module):
    """conv-BN-neuron-conv-BN(-SECA), plus the shortcut, then a neuron: spikes [N, in, H, W] to [N, out, H', W'].

    The shortcut is the identity, or a 1x1 convolution with batch norm where channels or stride change.

    Args:
        in_channels, out_channels, steps, stride: of the block.
        version: of the neuron behind the sum, "I", "II" or "III". Default "I".
        parallel: whether the neuron inside is of version III, without state, in place of `version`. Default False.
        seca: attention on currents of the branch; None: without. "I": on the second convolution's. "II": on that of
            each convolution that keeps the shape, SECA(I + BN(conv(I))) of what the convolution takes. Default None.
        conv: class of the convolutions, with Conv2d's arguments. Default torch.nn.Conv2d.
        neuron: further arguments of fastsnn.EMPF.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        steps: int,
        stride: int = 1,
        *,
        version: str = "I",
        parallel: bool = False,
        seca: str | None = None,
        conv: Any = nn.Conv2d,
        **neuron: Any,
    ) -> None:
        super().__init__()
        inner = "III" if parallel else version
        self.conv1 = conv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        resized = stride != 1 or in_channels != out_channels
        self.seca1 = SECA(out_channels, version="II") if seca == "II" and not resized else None
        self.neuron1 = EMPF(steps, inner, out_channels, **neuron)
        self.conv2 = conv(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.seca = None if seca is None else SECA(out_channels, version=seca)
        self.shortcut: nn.Module = nn.Identity()
        if resized:
            across = conv(in_channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(across, nn.BatchNorm2d(out_channels))
        self.neuron2 = EMPF(steps, version, out_channels, **neuron)

    def forward(self, spikes: Tensor) -> Tensor:
        """One step."""
        inner = self.neuron1(_attended(self.seca1, self.bn1(self.conv1(spikes)), spikes))
        branch = _attended(self.seca, self.bn2(self.conv2(inner)), inner)
        return self.neuron2(branch + self.shortcut(spikes))


def _attended(seca: SECA | None, current: Tensor, source: Tensor) -> Tensor:
    if seca is None:
        return current
    return seca(current, source) if seca.version == "II" else seca(current)
