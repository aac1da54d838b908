"""MPDR in LIF's kernels (equations/rptt.md): the second stage of a step's moments, and its part of the gradient.
Arguments as csrc/core/mpdr.h has them; moments [T, 2], coefficients [T, 3] and workspace [T, programs, 2] are float64.
"""

import triton
import triton.language as tl

from .kernel import kernel
from .moments import merged


@kernel
def mpdr_merge(workspace_p, moments_p, n: tl.int64, EPSILON: tl.constexpr, BLOCK: tl.constexpr):
    """Mean and biased variance of a step. A spread below the rounding of u counts as none."""
    t = tl.program_id(0).to(tl.int64)
    mean, m2 = merged(workspace_p + 2 * t * tl.cdiv(n, BLOCK), n, BLOCK)
    variance, rounding = m2 / n.to(tl.float64), mean * EPSILON
    tl.store(moments_p + 2 * t, mean)
    tl.store(moments_p + 2 * t + 1, tl.where(variance <= rounding * rounding, 0.0, variance))


@triton.jit
def mpdr_gradient(b_u, coefficients_p, t, STATE: tl.constexpr):
    """dL/du through the moments = offset + slope*(u - m)."""
    row_p = coefficients_p + 3 * t
    mean, offset, slope = tl.load(row_p), tl.load(row_p + 1), tl.load(row_p + 2)
    return offset.to(STATE) + slope.to(STATE) * (b_u - mean.to(STATE))
