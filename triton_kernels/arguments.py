"""Arguments of the kernels: numbers and optional arrays."""

import triton
import triton.language as tl


@triton.jit
def number(bits, STATE: tl.constexpr):
    """A parameter from its bits in the state's type.

    A float comes to a kernel as float32, unless it is declared as float64: every thread would then convert each
    parameter to float32, of which many GPUs do two in a cycle. Bits of the right type need no conversion.
    """
    if STATE.primitive_bitwidth == 64:
        return bits.to(tl.int64).to(STATE, bitcast=True)
    else:
        return bits.to(tl.int32).to(STATE, bitcast=True)


@triton.jit
def numbers(bits, STATE: tl.constexpr):
    """The parameters of a tuple of bits."""
    values = ()
    for i in tl.static_range(len(bits)):
        values += (number(bits[i], STATE),)
    return values


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
def load_slots(pointers, offsets, mask, COUNT: tl.constexpr, STATE: tl.constexpr):
    """A block for each array of a tuple; 0 where there is no array."""
    slots = ()
    for j in tl.static_range(COUNT):
        slots += (load_or(pointers[j], offsets, mask, 0.0, STATE),)
    return slots


@triton.jit
def store_slots(pointers, offsets, slots, mask):
    """Store to those arrays of a tuple that are wanted."""
    for j in tl.static_range(len(slots)):
        store_if(pointers[j], offsets, slots[j], mask)
