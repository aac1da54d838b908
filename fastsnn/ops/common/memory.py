"""Reuse of state memory: a fresh large buffer costs more in page faults than the kernel it feeds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

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


def is_private(tensor: Tensor) -> bool:
    """Whether its memory is torch's own and this process's alone: not numpy's or a file's, not shared with a fork."""
    return tensor.untyped_storage().resizable() and not (tensor.device.type == "cpu" and tensor.is_shared())


def is_free(tensor: Tensor) -> bool:
    """Whether the next state may take the tensor's memory."""
    return is_sole_owner(tensor) and is_private(tensor) and not tensor.is_inference()


class _Loop(threading.local):
    """Of this thread: whether a loop runs that resets before it goes on after an error."""

    resets = False


_loop = _Loop()


@contextmanager
def in_place() -> Iterator[None]:
    """Within it the state after a step takes the memory of the state before it, where nothing else holds that: half the
    memory, and less of it to fetch. A step that is interrupted may then have happened: for a loop that resets."""
    before, _loop.resets = _loop.resets, True
    try:
        yield
    finally:
        _loop.resets = before


def is_in_place() -> bool:
    """Whether this thread is inside of `in_place`."""
    return _loop.resets
