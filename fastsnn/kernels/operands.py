"""What every core takes for a dtype, and the workspace of its sums."""

from __future__ import annotations

import torch
from torch import Tensor

from .interface import INTERFACE


class Codes(dict[torch.dtype, int]):
    """Numbers by which cores know dtypes. Raises TypeError for another one."""

    def __missing__(self, dtype: torch.dtype) -> int:
        raise TypeError(f"a tensor has dtype {dtype}; kernels take {', '.join(map(str, self))}")


DTYPES = Codes({torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3})
SMALLEST_BLOCK = 256  # neurons that a block or program of a sum over all of them takes, or more


def workspace_of_blocks(like: Tensor, *sizes: int) -> Tensor:
    """Two sums of every block, for neurons of the last size."""
    *rows, n = sizes
    return like.new_empty((*rows, -(-n // SMALLEST_BLOCK), 2), dtype=torch.float64)


def declared(*beginnings: str) -> dict[str, str]:
    """What the kernels with names that begin so take, as the core must declare it."""
    return {kernel: takes for kernel, takes in INTERFACE.items() if kernel.startswith(beginnings)}
