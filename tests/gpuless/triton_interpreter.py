"""Repairs Triton's interpreter (seen in 3.8): its casts to bfloat16 truncate, and it computes on raw bits.

bfloat16 is a storage type here, as in the kernels: it widens to float32 exactly and float32 rounds to it to nearest
even. A dot takes it so widened; anything else on bfloat16 raises. A scalar, an array of one element, is an index with
any numpy (not so in Triton 3.6 with numpy 2.4). Divisions by zero, which are data in these kernels, warn no more, and a
call of a device function no longer patches the language anew, which took most of the time.
"""

import functools

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

QUIET_NAN = 0x7FC0


def to_bfloat16_bits(values):
    """float32 to the bits of bfloat16, round to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), QUIET_NAN, rounded).astype(np.uint16)


def from_bfloat16_bits(bits):
    """The bits of bfloat16 to float32, exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def involves_bfloat16(*dtypes):
    return any(dtype.scalar == tl.bfloat16 for dtype in dtypes)


def cast(original, self, source, target, *rounding):
    """InterpreterBuilder.cast_impl and create_fp_to_fp."""
    if not involves_bfloat16(source.dtype, target):
        return original(self, source, target, *rounding)
    pair = source.dtype.scalar, target.scalar
    if pair == (tl.float32, tl.bfloat16):
        return interpreter.TensorHandle(to_bfloat16_bits(source.data), tl.bfloat16)
    if pair == (tl.bfloat16, tl.float32):
        return interpreter.TensorHandle(from_bfloat16_bits(source.data), tl.float32)
    raise TypeError(f"bfloat16 converts to and from float32 only, not {pair[0]} to {pair[1]}")


def arithmetic(original, self, *arguments):
    """InterpreterBuilder's operations on one, two or three blocks."""
    operands = [a for a in arguments if isinstance(a, interpreter.TensorHandle)]
    if involves_bfloat16(*(operand.dtype for operand in operands)):
        raise TypeError("arithmetic in bfloat16: convert to float32 first")
    return original(self, *arguments)


def widened(handle):
    """bfloat16 as float32, anything else as it is."""
    if not involves_bfloat16(handle.dtype):
        return handle
    return interpreter.TensorHandle(from_bfloat16_bits(handle.data), tl.float32)


def dot(original, self, a, b, *others):
    """InterpreterBuilder.create_dot: products of bfloat16 are exact in float32."""
    return original(self, widened(a), widened(b), *others)


def patch_tensor(original, tensor, *scope):
    """_patch_lang_tensor, which has no scope in Triton 3.4."""
    original(tensor, *scope)
    put = scope[0].set_attr if scope else setattr
    put(tensor, "__index__", lambda self: int(self.handle.data.item()))


def quietly(original, *arguments, **options):
    with np.errstate(all="ignore"):
        return original(*arguments, **options)


@functools.cache
def patch_language(function):
    interpreter._patch_lang(function)


def call_device_function(original, self, *arguments, **options):
    patch_language(self.fn)
    return self.rewrite()(*arguments, **options)


REPAIRS = [
    (interpreter.InterpreterBuilder, "cast_impl", cast),
    (interpreter.InterpreterBuilder, "create_fp_to_fp", cast),
    (interpreter.InterpreterBuilder, "unary_op", arithmetic),
    (interpreter.InterpreterBuilder, "binary_op", arithmetic),
    (interpreter.InterpreterBuilder, "ternary_op", arithmetic),
    (interpreter.InterpreterBuilder, "create_fma", arithmetic),
    (interpreter.InterpreterBuilder, "create_dot", dot),
    (interpreter.GridExecutor, "__call__", quietly),
    (interpreter.InterpretedFunction, "__call__", call_device_function),
]


def repair():
    """Apply to every kernel of this process."""
    for owner, name, wrapper in REPAIRS:
        setattr(owner, name, functools.partialmethod(functools.partial(wrapper, getattr(owner, name))))
    interpreter._patch_lang_tensor = functools.partial(patch_tensor, interpreter._patch_lang_tensor)
