"""The plain PyTorch reference as backend: any device."""

from __future__ import annotations

from typing import Any

import torch

KERNELS: dict[str, Any] = {}  # family -> module of fastsnn.reference


def refusal(device: torch.device) -> str | None:
    """Nothing is refused."""
    return None
