"""The plain PyTorch reference as backend: any device."""

from __future__ import annotations

from typing import Any

import torch

from ..reference import binary, empf, lif, mpdr, osr, ots, standardize


def refusal(device: torch.device) -> str | None:
    """Nothing is refused."""
    return None


KERNELS: dict[str, Any] = {
    "lif": lif,
    "mpdr": mpdr,
    "standardize": standardize,
    "empf": empf,
    "binary": binary,
    "osr": osr,
    "ots": ots,
}
