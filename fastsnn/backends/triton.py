"""The triton backend."""

from __future__ import annotations

from typing import Any

import torch


def refusal(device: torch.device) -> str | None:
    """Why the kernels cannot run on tensors of `device`; None where they can."""
    return "this version of fastsnn has no triton kernels"


KERNELS: dict[str, Any] = {"lif": None, "standardize": None}
