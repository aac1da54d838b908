"""Eligibility traces of the neuron that fired: OTTT (equations/ottt.md), NDOT and as released (equations/ndot.md)."""

import triton
import triton.language as tl

from .surrogate import divide

# the codes of csrc/core/rules/list.h
NONE, OTTT, NDOT, NDOT_RELEASED = (tl.constexpr(code) for code in range(4))


@triton.jit
def clamp(q, bound):
    return tl.where(q < -bound, -bound, tl.where(q > bound, bound, q))


@triton.jit
def finite(q):
    return q - q == 0.0


@triton.jit
def ratio(r, r_prev, u_prev, leak):
    """e[t] of `ndot`. Where r_prev is 0 it is lam or -lam, chosen before the division for want of registers."""
    none = r_prev == 0.0
    num = tl.where(none, tl.where(u_prev >= 0.0, leak, -leak), r)
    return clamp(divide(num, tl.where(none, 1.0, r_prev)), leak)


@triton.jit
def ratio_released(num, den, leak):
    """e[t] of `ndot_released`: v is already reset and th*s is subtracted again, s as it leaves the dropout. lam, chosen
    before as in `ratio`, where no quotient is usable."""
    none = (den == 0.0) | ~(finite(num) & finite(den))
    q = divide(tl.where(none, leak, num), tl.where(none, 1.0, den))
    return tl.where(finite(q), clamp(q, leak), leak)
