"""Surrogate derivatives sg(z), z = u - th (equations/lif.md). Every shape has a height h and a slope k.

The shapes and their formulas stand in csrc/core/surrogate.h in the same order.
"""

import triton
import triton.language as tl

SIGMOID = tl.constexpr(0)  # h e / (1 + e)^2, e = exp(-|k z|)
TRIANGLE = tl.constexpr(1)  # h max(0, 1 - |k z|)
RECTANGLE = tl.constexpr(2)  # h where |z| <= k
RECT_OPEN = tl.constexpr(3)  # h where |z| < k
ATAN = tl.constexpr(4)  # h / (1 + (k z)^2)
PIECEWISE_EXP = tl.constexpr(5)  # h exp(-|k z|)
SOFT_SIGN = tl.constexpr(6)  # h / (1 + |k z|)^2
ERF = tl.constexpr(7)  # h exp(-(k z)^2)


@triton.jit
def divide(a, b):
    """a / b, rounded as IEEE 754 asks: `/` of float32 is an approximation."""
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def exp_nonpositive_f32(x):
    magic = 12582912.0  # 1.5 * 2^23: its low mantissa bits hold the rounded integer
    shifted = x * 1.44269504 + magic
    n = shifted - magic
    r = n * 2.12194440e-4 + (n * -0.693359375 + x)
    p = r * 0.001381459878757596 + 0.008368716575205326
    p = p * r + 0.04166838899254799
    p = p * r + 0.1666652113199234
    p = p * r + 0.4999999403953552
    p = p * r + 1.0
    p = p * r + 1.0
    scale = ((shifted.to(tl.uint32, bitcast=True) + 127) << 23).to(tl.float32, bitcast=True)
    return tl.where(x < -87.0, 0.0, p * scale)


@triton.jit
def exp_nonpositive_f64(x):
    magic = 6755399441055744.0  # 1.5 * 2^52
    shifted = x * 1.4426950408889634 + magic
    n = shifted - magic
    r = n * -1.42860682030941723212e-6 + (n * -6.93145751953125e-1 + x)
    p = r * (1.0 / 6227020800.0) + (1.0 / 479001600.0)
    p = p * r + (1.0 / 39916800.0)
    p = p * r + (1.0 / 3628800.0)
    p = p * r + (1.0 / 362880.0)
    p = p * r + (1.0 / 40320.0)
    p = p * r + (1.0 / 5040.0)
    p = p * r + (1.0 / 720.0)
    p = p * r + (1.0 / 120.0)
    p = p * r + (1.0 / 24.0)
    p = p * r + (1.0 / 6.0)
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    scale = ((shifted.to(tl.uint64, bitcast=True) + 1023) << 52).to(tl.float64, bitcast=True)
    return tl.where(x < -708.0, 0.0, p * scale)


@triton.jit
def exp_nonpositive(x):
    """exp(x) for x <= 0 by range reduction, |r| <= ln2/2; 0 on underflow. Relative error 2e-7 and 4e-16."""
    if x.dtype == tl.float64:
        return exp_nonpositive_f64(x)
    else:
        return exp_nonpositive_f32(x)


@triton.jit
def surrogate(z, h, k, SHAPE: tl.constexpr):
    kz = tl.abs(k * z)
    if SHAPE == SIGMOID:
        e = exp_nonpositive(-kz)
        return divide(h * e, (1.0 + e) * (1.0 + e))
    elif SHAPE == TRIANGLE:
        y = 1.0 - kz
        return h * tl.where(y < 0.0, 0.0, y)
    elif SHAPE == RECTANGLE:
        return tl.where(tl.abs(z) <= k, h, 0.0)
    elif SHAPE == RECT_OPEN:
        return tl.where(tl.abs(z) < k, h, 0.0)
    elif SHAPE == ATAN:
        return h * divide(tl.full(kz.shape, 1.0, kz.dtype), 1.0 + kz * kz)
    elif SHAPE == PIECEWISE_EXP:
        return h * exp_nonpositive(-kz)
    elif SHAPE == SOFT_SIGN:
        return h * divide(tl.full(kz.shape, 1.0, kz.dtype), (1.0 + kz) * (1.0 + kz))
    else:
        tl.static_assert(SHAPE == ERF)
        return h * exp_nonpositive(-(kz * kz))
