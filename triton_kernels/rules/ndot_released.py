"""NDOT as released (equations/ndot.md): v is already reset and th*s is subtracted again, s as it leaves the dropout."""

import triton
import triton.language as tl

from ..surrogate import divide
from .ndot import clamp
from .rule import Rule


@triton.jit
def finite(q):
    return q - q == 0.0


@triton.jit
def ratio_released(num, den, leak):
    """e[t], or lam where no quotient is usable, chosen before the division as in `ratio`."""
    none = (den == 0.0) | ~(finite(num) & finite(den))
    q = divide(tl.where(none, leak, num), tl.where(none, 1.0, den))
    return tl.where(finite(q), clamp(q, leak), leak)


@triton.jit
def advance(p, now, slots):
    """a[t] = e[t] * a[t-1] + s[t], e[t] = clamp(num[t]/num[t-1], -lam, lam); the second slot is num."""
    num = tl.where(now.fired, now.v - p.threshold * now.s, now.v)
    return ratio_released(num, slots[1], p.leak) * slots[0] + now.s, num


NDOT_RELEASED = Rule("ndot_released", advance=advance)
