"""Arguments of the kernels: numbers and optional arrays."""

import triton
import triton.language as tl


@triton.jit
def number(bits, STATE: tl.constexpr):
    """A parameter from the bits of its float64."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(STATE)


@triton.jit
def load_or(pointer, offsets, mask, value, STATE: tl.constexpr):
    """The block of an optional array in the state's type; `value` where there is no array."""
    if pointer is None:
        return tl.full(offsets.shape, value, STATE)
    else:
        return tl.load(pointer + offsets, mask, 0.0).to(STATE)


@triton.jit
def store_if(pointer, offsets, value, mask):
    """Store to an optional array in its own type."""
    if pointer is not None:
        tl.store(pointer + offsets, value.to(pointer.dtype.element_ty), mask)


@triton.jit
def offsets(BLOCK, PAIRED: tl.constexpr):
    """Those of this program's neurons [BLOCK]; and those that a thread takes at once. In pairs these are of 8 neurons,
    16 bytes of a half type, the first 4, 16 bytes of float32 [BLOCK / 2]: the state of 8 is too much."""
    first, o_n = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    if PAIRED:
        i = tl.arange(0, BLOCK // 2)
        return first + o_n, first + (i // 4 * 8 + i % 4)
    else:
        return first + o_n, first + o_n


@triton.jit
def fours(b):
    """A block as two: of every 8 neighbours the first 4 and the last 4. Where a thread has 8, nothing moves."""
    ROWS: tl.constexpr = b.shape[0] // 8
    low, high = tl.split(tl.permute(tl.reshape(b, [ROWS, 2, 4]), [0, 2, 1]))
    return tl.reshape(low, [ROWS * 4]), tl.reshape(high, [ROWS * 4])


@triton.jit
def eights(low, high):
    """The block whose `fours` these are."""
    ROWS: tl.constexpr = low.shape[0] // 4
    b = tl.join(tl.reshape(low, [ROWS, 4]), tl.reshape(high, [ROWS, 4]))
    return tl.reshape(tl.permute(b, [0, 2, 1]), [ROWS * 8])
