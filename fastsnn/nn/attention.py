"""Channel attention on the input current: SECA I and II (Hao et al. 2024, eq. 9 and 10; SPEC section 4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["SECA"]


class SECA(nn.Module):
    """att = sigmoid(conv1d(mean over space)) along the channels, out = att*I, the same weights at every step.

    Version "I": SECA(I). Version "II": SECA(I + BN2d(conv(I))), 3x3, with `conv` a class that takes Conv2d's arguments.

    Args: channels C of inputs [N, C, H, W]; kernel_size of the convolution along the channels, odd; version; conv.
    Raises ValueError for a kernel size that is even or below 1, and for an unknown version.
    """

    def __init__(self, channels: int, kernel_size: int = 3, version: str = "I", conv: Any = nn.Conv2d) -> None:
        super().__init__()
        if isinstance(kernel_size, bool) or not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size!r}; it must be odd, so that a channel lies in the middle: 3")
        if version not in ("I", "II"):
            raise ValueError(f"version is {version!r}; allowed: I, II")
        self.version = version
        self.attend = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)
        if version == "II":
            self.mix = nn.Sequential(conv(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, current: Tensor) -> Tensor:
        """Weighted current, [N, C, H, W]."""
        if self.version == "II":
            current = current + self.mix(current)
        pooled = current.mean((2, 3)).unsqueeze(1)  # [N, 1, C]
        attention = torch.sigmoid(self.attend(pooled)).transpose(1, 2).unsqueeze(-1)  # [N, C, 1, 1]
        return attention * current

    def extra_repr(self) -> str:
        return f"version={self.version!r}"
