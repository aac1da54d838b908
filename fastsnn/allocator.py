"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import platform

# of glibc's malloc.h: parameter and value; sizes up to 1 GB from the heap, of which up to 2 GB that are free stay
KEEP = {"M_MMAP_THRESHOLD": (-3, 2**30), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**26)}


def keep_freed_memory() -> None:
    """Memory freed in this process serves its next tensors, in place of going back to the system, which clears and maps
    each page anew at every step. Another C library than glibc goes on as it does."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in KEEP.values():
            libc.mallopt(parameter, value)
