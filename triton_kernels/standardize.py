"""Weight standardisation (equations/ottt.md): one program an output channel, sums in float64 in a fixed order.

weight, out and their gradients [rows, cols]; gain and its gradient, mean, inverse [rows]; mean and inverse float64.
"""

import triton
import triton.language as tl

from .arguments import number
from .kernel import kernel
from .launch import AT_HALF_OCCUPANCY
from .operands import Call, bits

BLOCK = 1024  # columns at once


@triton.jit
def standardize_inverse(sum_of_squares, cols, eps):
    return 1.0 / tl.sqrt(sum_of_squares / (cols - 1.0) * cols + eps)


@triton.jit
def standardize_grad(g, mean_g, xc, inv, gain, pull):
    """g_W = inv * gain * (g - mean(g)) - xc * inv^3 * N/(N-1) * gain * sum(g * xc), xc = W - mean."""
    return inv * gain * (g - mean_g) - xc * pull


@triton.jit
def standardize_pull(sum_g_xc, inv, gain, cols):
    return inv * inv * inv * (cols / (cols - 1.0)) * gain * sum_g_xc


@triton.jit
def load_double(pointer, offsets, mask):
    return tl.load(pointer + offsets, mask, 0.0).to(tl.float64)


@triton.jit
def store_rounded(pointer, offsets, value, mask):
    """Store a float64, through float32 where the array's type is smaller."""
    dtype: tl.constexpr = pointer.dtype.element_ty
    state: tl.constexpr = tl.float64 if dtype == tl.float64 else tl.float32
    tl.store(pointer + offsets, value.to(state).to(dtype), mask)


@kernel(do_not_specialize=["eps"])
def standardize_forward(weight_p, gain_p, mean_p, inverse_p, out_p, cols: tl.int64, eps: tl.int64, BLOCK: tl.constexpr):
    i_row = tl.program_id(0).to(tl.int64)
    weight_p, out_p = weight_p + i_row * cols, out_p + i_row * cols
    o_block = tl.arange(0, BLOCK)
    N = cols.to(tl.float64)
    eps = number(eps, tl.float64)

    b_sum = tl.zeros([BLOCK], tl.float64)
    for i in range(0, cols, BLOCK):
        o_col = i + o_block
        b_sum += load_double(weight_p, o_col, o_col < cols)
    mean = tl.sum(b_sum, 0) / N

    b_squares = tl.zeros([BLOCK], tl.float64)
    for i in range(0, cols, BLOCK):
        o_col = i + o_block
        b_xc = load_double(weight_p, o_col, o_col < cols) - mean
        b_squares += tl.where(o_col < cols, b_xc * b_xc, 0.0)
    inv = standardize_inverse(tl.sum(b_squares, 0), N, eps)

    scale = tl.load(gain_p + i_row).to(tl.float64) * inv
    for i in range(0, cols, BLOCK):
        o_col = i + o_block
        b_xc = load_double(weight_p, o_col, o_col < cols) - mean
        store_rounded(out_p, o_col, b_xc * scale, o_col < cols)
    tl.store(mean_p + i_row, mean)
    tl.store(inverse_p + i_row, inv)


@kernel
def standardize_backward(
    weight_p,
    gain_p,
    mean_p,
    inverse_p,
    g_out_p,
    g_weight_p,
    g_gain_p,
    cols: tl.int64,
    BLOCK: tl.constexpr,
):
    i_row = tl.program_id(0).to(tl.int64)
    weight_p, g_out_p, g_weight_p = weight_p + i_row * cols, g_out_p + i_row * cols, g_weight_p + i_row * cols
    o_block = tl.arange(0, BLOCK)
    N = cols.to(tl.float64)
    mean, inv = tl.load(mean_p + i_row), tl.load(inverse_p + i_row)
    gain = tl.load(gain_p + i_row).to(tl.float64)

    b_sum = tl.zeros([BLOCK], tl.float64)
    for i in range(0, cols, BLOCK):
        o_col = i + o_block
        b_sum += load_double(g_out_p, o_col, o_col < cols)
    mean_g = tl.sum(b_sum, 0) / N

    b_g_xc = tl.zeros([BLOCK], tl.float64)
    for i in range(0, cols, BLOCK):
        o_col = i + o_block
        b_xc = load_double(weight_p, o_col, o_col < cols) - mean
        b_g_xc += load_double(g_out_p, o_col, o_col < cols) * b_xc
    g_xc = tl.sum(b_g_xc, 0)

    pull = standardize_pull(g_xc, inv, gain, N)
    for i in range(0, cols, BLOCK):
        o_col = i + o_block
        b_xc = load_double(weight_p, o_col, o_col < cols) - mean
        b_g = load_double(g_out_p, o_col, o_col < cols)
        b_g_weight = standardize_grad(b_g, mean_g, b_xc, inv, gain, pull)
        store_rounded(g_weight_p, o_col, b_g_weight, o_col < cols)
    store_rounded(g_gain_p, i_row, g_xc * inv, None)


def _forward(call: Call) -> None:
    call.eps = bits(call.eps)
    call.run(standardize_forward, call.rows, BLOCK=BLOCK, **AT_HALF_OCCUPANCY)


def _backward(call: Call) -> None:
    call.run(standardize_backward, call.rows, BLOCK=BLOCK, **AT_HALF_OCCUPANCY)


LAUNCHES = {"standardize_forward": _forward, "standardize_backward": _backward}
