"""Channel attention on the input current: SECA I and II (Hao et al. 2024, eq. 9 and 10; equations/empf.md)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SECA"]


class SECA(nn.Module):
    """att = sigmoid(conv1d(mean over space)) along the channels, out = att*I, the same weights at every step.

    Version "I": SECA(I). Version "II": SECA(I + BN2d(BConv2d(I))), where the convolution and its norm are those of the
    layer itself, which table 3 of the paper shows by sizes that do not grow: call it as seca(bn(conv(x)), x). It has no
    place behind a convolution that changes the shape.

    Args: channels C of inputs [N, C, H, W]; kernel_size of the convolution along the channels, odd; version.
    Raises ValueError for channels below 1, for a kernel size that is even or below 1, for an unknown version, and for
    an input that the version does not take.
    """

    def __init__(self, channels: int, kernel_size: int = 3, version: str = "I") -> None:
        super().__init__()
        if isinstance(kernel_size, bool) or not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size!r}; it must be odd, so that a channel lies in the middle: 3")
        if version not in ("I", "II"):
            raise ValueError(f"version is {version!r}; allowed: I, II")
        if channels < 1:
            raise ValueError(f"channels is {channels}; it must be at least 1")
        self.channels, self.version = channels, version
        self.attend = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, current: Tensor, source: Tensor | None = None) -> Tensor:
        """Weighted current, [N, C, H, W]. source: what version II's own convolution took, of the same shape."""
        if current.dim() != 4 or current.shape[1] != self.channels:
            raise ValueError(f"current has shape {tuple(current.shape)}; it must be [N, {self.channels}, H, W]")
        if (source is None) == (self.version == "II"):
            raise ValueError("SECA 'II' takes seca(bn(conv(x)), x), SECA 'I' the current alone")
        if source is not None:
            if source.shape != current.shape:
                raise ValueError(
                    f"source has shape {tuple(source.shape)} and current {tuple(current.shape)}: behind a convolution "
                    "that changes the shape there is no SECA 'II'; use 'I'"
                )
            current = source + current
        pooled = current.mean((2, 3)).unsqueeze(1)  # [N, 1, C]
        attention = torch.sigmoid(self.attend(pooled)).transpose(1, 2).unsqueeze(-1)  # [N, C, 1, 1]
        return attention * current

    def extra_repr(self) -> str:
        return f"version={self.version!r}"
