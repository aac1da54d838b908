"""Binary synapses (equations/empf.md): the weight transform, and products of spikes with packed signs.

Arguments of the products as csrc/core/binary.h has them: words [blocks, taps, words, 16], 16 outputs a block, one word
32 / BITS neighbouring channels of an output; planes (height, width); strides of sample, channel, row, column.
"""

from math import prod
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from .arguments import load_or, store_if
from .kernel import kernel
from .launch import INTERPRETED, OPTIONS, block_of
from .operands import Call, cdiv
from .standardize import load_double

OUTPUTS = tl.constexpr(16)  # of a block
DEPTH = tl.constexpr(16)  # channels of one product of tiles: with more of them, operands leave the registers


@triton.jit
def sign(w):
    """sign(0) = 0, and NaN stays."""
    return tl.where(w > 0.0, 1.0, tl.where(w < 0.0, -1.0, w * 0.0))


@triton.jit
def straight_through(g, w):
    """g_W = g_Wb where -1 <= W <= 1, else 0."""
    return tl.where((w >= -1.0) & (w <= 1.0), g, 0.0)


@triton.jit
def weight_of(code, BITS: tl.constexpr):
    """From the lowest bits: 0 is +1 and 1 is -1 (1 bit), or two's complement (2 bits)."""
    if BITS == 1:
        return tl.where((code & 1) == 0, 1.0, -1.0)
    else:
        return tl.where((code & 1) == 0, 0.0, tl.where((code & 2) == 0, 1.0, -1.0))


@kernel
def binarize_forward(weight_p, scale_p, out_p, cols: tl.int64, SCALED: tl.constexpr, BLOCK: tl.constexpr):
    """One program an output: W_b = scale_o * sign(W), scale_o = mean |W| in float64, summed in a fixed order."""
    STATE: tl.constexpr = tl.float64 if weight_p.dtype.element_ty == tl.float64 else tl.float32
    i_row = tl.program_id(0).to(tl.int64)
    weight_p, out_p = weight_p + i_row * cols, out_p + i_row * cols
    b_sum = tl.zeros([BLOCK], tl.float64)
    for i in range(0, cols, BLOCK):
        o_col = i + tl.arange(0, BLOCK)
        b_sum += tl.abs(load_double(weight_p, o_col, o_col < cols))
    mean = tl.sum(b_sum, 0) / cols.to(tl.float64)
    for i in range(0, cols, BLOCK):
        o_col = i + tl.arange(0, BLOCK)
        b_sign = sign(tl.load(weight_p + o_col, o_col < cols, 0.0).to(STATE))
        store_if(out_p, o_col, mean.to(STATE) * b_sign if SCALED else b_sign, o_col < cols)
    tl.store(scale_p + i_row, mean)


@kernel
def binarize_backward(weight_p, g_out_p, g_weight_p, n: tl.int64, BLOCK: tl.constexpr):
    STATE: tl.constexpr = tl.float64 if weight_p.dtype.element_ty == tl.float64 else tl.float32
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_n = o_n < n
    b_w, b_g = tl.load(weight_p + o_n, m_n, 0.0).to(STATE), tl.load(g_out_p + o_n, m_n, 0.0).to(STATE)
    store_if(g_weight_p, o_n, straight_through(b_g, b_w), m_n)


@triton.jit
def pixel_of(
    o_p,
    tap,
    in_h,
    in_w,
    out_h,
    out_w,
    kernel_w,
    stride_h,
    stride_w,
    padding_h,
    padding_w,
    dilation_h,
    dilation_w,
    x_n,
    x_h,
    x_w,
):
    """Where in x the pixel under a tap of an output position begins, and whether it lies inside."""
    line, kernel_w = o_p // out_w, kernel_w.to(tl.int32)  # as taps; 64 bits take more registers to divide
    row = line % out_h * stride_h - padding_h + tap // kernel_w * dilation_h
    column = o_p % out_w * stride_w - padding_w + tap % kernel_w * dilation_w
    inside = (row >= 0) & (row < in_h) & (column >= 0) & (column < in_w)
    return tl.where(inside, line // out_h * x_n + row * x_h + column * x_w, 0), inside


@triton.jit
def load_spikes(x_p, o_c, m, channels, x_c, NEIGHBOURS: tl.constexpr):
    """Channels of pixels, zeros beyond the last; neighbours where channels lie one after another."""
    return tl.load(x_p + (o_c if NEIGHBOURS else o_c * x_c), m & (o_c < channels), 0.0)


@triton.jit
def finished(b_sum, o_o, m_o, scale_p, bias_p):
    """y from the sums of signed spikes of outputs o_o."""
    return b_sum * load_or(scale_p, o_o, m_o, 1.0, tl.float32) + load_or(bias_p, o_o, m_o, 0.0, tl.float32)


@kernel
def packed_few(
    x_p,
    words_p,
    scale_p,
    bias_p,
    y_p,
    batch: tl.int64,
    channels: tl.int64,
    outputs: tl.int64,
    in_h: tl.int64,
    in_w: tl.int64,
    out_h: tl.int64,
    out_w: tl.int64,
    kernel_h: tl.int64,
    kernel_w: tl.int64,
    stride_h: tl.int64,
    stride_w: tl.int64,
    padding_h: tl.int64,
    padding_w: tl.int64,
    dilation_h: tl.int64,
    dilation_w: tl.int64,
    x_n: tl.int64,
    x_c: tl.int64,
    x_h: tl.int64,
    x_w: tl.int64,
    y_n: tl.int64,
    y_c: tl.int64,
    y_h: tl.int64,
    y_w: tl.int64,
    BITS: tl.constexpr,
    NEIGHBOURS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """A program 16 outputs of one position: every word is read once. A step is a word of a tap."""
    PER_WORD: tl.constexpr = 32 // BITS
    i_block, i_p = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    words = tl.cdiv(channels, PER_WORD).to(tl.int32)  # a fan-in is below 2^31
    steps = (kernel_h * kernel_w).to(tl.int32) * words
    o_k = tl.arange(0, PER_WORD)[None, :, None]
    o_o = tl.arange(0, OUTPUTS)
    b_sum = tl.zeros([STEPS, PER_WORD, OUTPUTS], tl.float32)
    for i in range(0, steps, STEPS):
        o_s = i + tl.arange(0, STEPS)[:, None, None]
        tap = o_s // words
        pixel, inside = pixel_of(
            *(i_p, tap, in_h, in_w, out_h, out_w, kernel_w, stride_h, stride_w, padding_h, padding_w),
            *(dilation_h, dilation_w, x_n, x_h, x_w),
        )
        b_words = tl.load(words_p + (i_block * steps + o_s) * OUTPUTS + o_o[None, None, :], o_s < steps, 0)
        o_c = o_s % words * PER_WORD + o_k  # [STEPS, PER_WORD, 1]
        b_x = load_spikes(x_p + pixel, o_c, inside & (o_s < steps), channels, x_c, NEIGHBOURS).to(tl.float32)
        b_sum += b_x * weight_of(b_words >> o_k * BITS, BITS)
    o_o = i_block * OUTPUTS + o_o
    b_y = finished(tl.sum(tl.sum(b_sum, 0), 0), o_o, o_o < outputs, scale_p, bias_p)
    line = i_p // out_w
    y_p += line // out_h * y_n + line % out_h * y_h + i_p % out_w * y_w
    store_if(y_p, o_o * y_c, b_y, o_o < outputs)


@kernel
def packed_tile(
    x_p,
    words_p,
    scale_p,
    bias_p,
    y_p,
    batch: tl.int64,
    channels: tl.int64,
    outputs: tl.int64,
    in_h: tl.int64,
    in_w: tl.int64,
    out_h: tl.int64,
    out_w: tl.int64,
    kernel_h: tl.int64,
    kernel_w: tl.int64,
    stride_h: tl.int64,
    stride_w: tl.int64,
    padding_h: tl.int64,
    padding_w: tl.int64,
    dilation_h: tl.int64,
    dilation_w: tl.int64,
    x_n: tl.int64,
    x_c: tl.int64,
    x_h: tl.int64,
    x_w: tl.int64,
    y_n: tl.int64,
    y_c: tl.int64,
    y_h: tl.int64,
    y_w: tl.int64,
    BITS: tl.constexpr,
    NEIGHBOURS: tl.constexpr,
    TILE_P: tl.constexpr,
    TILE_O: tl.constexpr,
):
    """A program a tile of positions by outputs; tensor cores for spikes of 16 bits, float32 ones exact in float32."""
    PER_WORD: tl.constexpr = 32 // BITS
    o_p = tl.program_id(0).to(tl.int64) * TILE_P + tl.arange(0, TILE_P)
    o_o = tl.program_id(1).to(tl.int64) * TILE_O + tl.arange(0, TILE_O)
    m_p, m_o = o_p < batch * out_h * out_w, o_o < outputs
    words, taps = tl.cdiv(channels, PER_WORD).to(tl.int32), (kernel_h * kernel_w).to(tl.int32)
    words_p += o_o // OUTPUTS * (taps * words) * OUTPUTS + o_o % OUTPUTS
    b_sum = tl.zeros([TILE_P, TILE_O], tl.float32)
    for tap in range(taps):
        pixel, inside = pixel_of(
            *(o_p, tap, in_h, in_w, out_h, out_w, kernel_w, stride_h, stride_w, padding_h, padding_w),
            *(dilation_h, dilation_w, x_n, x_h, x_w),
        )
        for word in range(words):
            b_words = tl.load(words_p, m_o, 0)
            words_p += OUTPUTS
            for first in tl.static_range(0, PER_WORD, DEPTH):
                o_k = first + tl.arange(0, DEPTH)
                o_c = (word * PER_WORD + o_k)[None, :]
                b_x = load_spikes(x_p + pixel[:, None], o_c, (inside & m_p)[:, None], channels, x_c, NEIGHBOURS)
                b_w = weight_of(b_words[None, :] >> (o_k * BITS)[:, None], BITS).to(b_x.dtype)
                b_sum = tl.dot(b_x, b_w, b_sum, input_precision="ieee")
    b_y = finished(b_sum, o_o[None, :], m_o[None, :], scale_p, bias_p)
    line = o_p // out_w
    o_y = line // out_h * y_n + line % out_h * y_h + o_p % out_w * y_w
    store_if(y_p, o_y[:, None] + (o_o * y_c)[None, :], b_y, m_p[:, None] & m_o[None, :])


FEW = 8  # output positions up to which a tile would mostly be empty
WIDE = OPTIONS | {"num_warps": 8}


def _forward(call: Call) -> None:
    block = block_of(call.cols, call.weight)
    call.run(binarize_forward, call.rows, SCALED=call.scaled, BLOCK=block, **OPTIONS)


def _backward(call: Call) -> None:
    call.n = call.rows * call.cols
    block = block_of(call.n, call.weight)
    call.run(binarize_backward, cdiv(call.n, block), BLOCK=block, **OPTIONS)


def _few(positions: int, outputs: int, bits: int) -> tuple[Any, tuple[int, int], dict[str, Any]]:
    """Kernel, grid and options where weights are read once."""
    return packed_few, (cdiv(outputs, OUTPUTS.value), positions), {"STEPS": 8 * bits} | WIDE


def _tiles(positions: int, outputs: int, x: Tensor) -> tuple[Any, tuple[int, int], dict[str, Any]]:
    """Kernel, grid and options where tiles fill; smaller ones without tensor cores."""
    tile_p, tile_o = 64 if x.element_size() == 2 else 32, 32
    if INTERPRETED:  # which pays for each program: few and large ones
        tile_p, tile_o = (max(OUTPUTS.value, min(triton.next_power_of_2(n), 512)) for n in (positions, outputs))
    grid = (cdiv(positions, tile_p), cdiv(outputs, tile_o))
    # a third stage of loads takes registers that float32 spikes lack
    return packed_tile, grid, {"TILE_P": tile_p, "TILE_O": tile_o, "num_stages": 2} | WIDE


PLANES = ("in_plane", "out_plane", "kernel", "stride", "padding", "dilation")


def _product(call: Call) -> None:
    positions = call.batch * prod(call.out_plane)
    few = positions <= FEW
    run, grid, options = _few(positions, call.outputs, call.bits) if few else _tiles(positions, call.outputs, call.x)
    for name in PLANES:
        name_of_side = name.removesuffix("_plane")
        height, width = getattr(call, name)
        vars(call).update({f"{name_of_side}_h": height, f"{name_of_side}_w": width})
    for array in ("x", "y"):
        strides = getattr(call, f"{array}_strides")
        vars(call).update(zip((f"{array}_n", f"{array}_c", f"{array}_h", f"{array}_w"), strides, strict=True))
    call.run(run, *grid, BITS=call.bits, NEIGHBOURS=call.x_strides[1] == 1, **options)


LAUNCHES = {"binarize_forward": _forward, "binarize_backward": _backward, "packed_product": _product}
