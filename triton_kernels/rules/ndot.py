"""NDOT (equations/ndot.md)."""

import triton
import triton.language as tl

from ..surrogate import divide
from .rule import Rule


@triton.jit
def clamp(q, bound):
    return tl.where(q < -bound, -bound, tl.where(q > bound, bound, q))


@triton.jit
def ratio(r, r_prev, u_prev, leak):
    """e[t]; where r[t-1] = 0, lam with the sign of u[t-1]. This is chosen before the division, not after it, so that
    fewer values are held in registers while a quotient is computed."""
    none = r_prev == 0.0
    num = tl.where(none, tl.where(u_prev >= 0.0, leak, -leak), r)
    return clamp(divide(num, tl.where(none, 1.0, r_prev)), leak)


@triton.jit
def advance(p, now, slots):
    """a[t] = e[t-1] * a[t-1] + s[t], e[t] = clamp(v[t]/v[t-1], -lam, lam)."""
    trace = slots[1] * slots[0] + now.s
    return trace, ratio(now.v, tl.where(now.first, 1.0, now.v_prev), now.u_prev, p.leak)


NDOT = Rule("ndot", advance=advance)
