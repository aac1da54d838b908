"""OTTT (equations/ottt.md)."""

import triton
import triton.language as tl  # noqa: F401 (the interpreter needs it)

from .rule import Rule


@triton.jit
def advance(p, now, slots):
    """a[t] = lam * a[t-1] + s[t]."""
    return (p.leak * slots[0] + now.s,)


OTTT = Rule("ottt", advance=advance)
