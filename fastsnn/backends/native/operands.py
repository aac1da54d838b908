"""What every core takes for a tensor and its dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
Give = Callable[[Tensor | None], Any]


def address(tensor: Tensor | None) -> int:
    """What the native cores take."""
    return 0 if tensor is None else tensor.data_ptr()
