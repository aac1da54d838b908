"""Arguments of the kernels: numbers and optional arrays."""

import triton
import triton.language as tl


@triton.jit
def number(bits, STATE: tl.constexpr):
    """A parameter from its bits in the state's type."""
    if STATE.primitive_bitwidth == 64:
        return bits.to(tl.int64).to(STATE, bitcast=True)
    else:
        return bits.to(tl.int32).to(STATE, bitcast=True)


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
