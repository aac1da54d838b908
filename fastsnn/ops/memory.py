"""Reuse of state memory: a fresh large buffer costs more in page faults than the kernel it feeds."""

from __future__ import annotations

import torch
from torch import Tensor

# below this a fresh buffer is cheaper than asking
WORTH_ASKING = 1 << 15

_use_count = getattr(torch._C, "_storage_Use_Count", None)


def _uses(tensor: Tensor) -> int:
    return _use_count(tensor.untyped_storage()._cdata)  # type: ignore[misc]


_UNSHARED = _uses(torch.empty(1)) if _use_count else 0


def is_sole_owner(tensor: Tensor) -> bool:
    """Whether nothing but `tensor` keeps its memory: no graph, no view, no other tensor."""
    return _use_count is not None and _uses(tensor) == _UNSHARED


def holders(tensor: Tensor) -> int:
    """How many tensors keep this memory, `tensor` with them; 0 where torch does not tell."""
    return _uses(tensor) - _UNSHARED + 1 if _use_count else 0
