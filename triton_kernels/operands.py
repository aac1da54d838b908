"""Checks of what a launch is given: the native core's own, which know every kernel's operands (csrc/core)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fastsnn._cpu import checks

kernels = getattr(checks, "kernels", {})  # name -> what it takes, in words
CPU, CUDA = 1, 2  # types of a device, as DLPack numbers them


def checked(launch: Callable[..., None]) -> Callable[..., None]:
    """A launch that raises TypeError or ValueError, naming the operand, before it reaches the device."""
    check = getattr(checks, launch.__name__)

    @functools.wraps(launch)
    def run(*args: Any) -> None:
        *params, device = args[:2] if hasattr(args[0], "native") else args[:1]
        where = (CPU, 0) if device.idx < 0 else (CUDA, device.idx)
        check(*(p.native for p in params), where, *args[len(params) + 1 :])
        launch(*args)

    return run
