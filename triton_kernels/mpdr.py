"""What LIF's kernels do with MPDR (SPEC 7) more: the second stage of a step's moments, and its part of the gradient.
Arguments as csrc/core/mpdr.h has them; moments [T, 2] and room [T, programs, 2] are float64.
"""

import triton
import triton.language as tl

from .arguments import number
from .kernel import kernel
from .moments import merged


@kernel
def mpdr_merge(room_p, moments_p, n: tl.int64, EPSILON: tl.constexpr, BLOCK: tl.constexpr):
    """Mean and biased variance of a step. A spread below the rounding of u counts as none."""
    t = tl.program_id(0).to(tl.int64)
    mean, m2 = merged(room_p + 2 * t * tl.cdiv(n, BLOCK), n, BLOCK)
    variance, rounding = m2 / n.to(tl.float64), mean * EPSILON
    tl.store(moments_p + 2 * t, mean)
    tl.store(moments_p + 2 * t + 1, tl.where(variance <= rounding * rounding, 0.0, variance))


@triton.jit
def pull(b_u, moments_p, t, target, precision, share, mu, STATE: tl.constexpr):
    """a1 dL_M/du = offset + slope*(u - m); a layer without spread has no slope."""
    mean, variance = tl.load(moments_p + 2 * t), tl.load(moments_p + 2 * t + 1)
    target, precision = number(target, tl.float64), number(precision, tl.float64)
    share, mu = number(share, tl.float64), number(mu, tl.float64)
    slope = tl.where(variance == 0.0, 0.0, (precision - 1.0 / variance) + 2.0 * mu)
    offset = share * ((mean - target) * precision)
    return offset.to(STATE) + (share * slope).to(STATE) * (b_u - mean.to(STATE))
