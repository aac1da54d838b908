"""What every core takes for a tensor and its dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
Give = Callable[[Tensor | None], Any]


SMALLEST_BLOCK = 256  # neurons that a block or program of a sum over all of them takes, or more


def address(tensor: Tensor | None) -> int:
    """What the native cores take."""
    return 0 if tensor is None else tensor.data_ptr()


def room_of_blocks(like: Tensor, *sizes: int) -> Tensor:
    """Two sums of every block, for neurons of the last size."""
    *rows, n = sizes
    return like.new_empty((*rows, -(-n // SMALLEST_BLOCK), 2), dtype=torch.float64)
