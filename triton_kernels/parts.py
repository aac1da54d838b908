"""Which neurons a thread takes: 16 bytes of the input or, of a half type beside float32 state, two parts of 16 bytes of
state each, as in csrc/cuda/parts.h."""

import triton
import triton.language as tl


@triton.jit
def places(BLOCK, T, n, ALIGNED: tl.constexpr, PAIRED: tl.constexpr):
    """Offsets and masks: of this program's neurons [BLOCK]; of those that a thread takes at once; of the other part. In
    pairs, for a half type, a part is the first or the last 8 of every 16 [BLOCK / 2]: two threads take 16 bytes of
    float32 each, which is a whole sector."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    if not ALIGNED:
        # zero, which Triton does not know: of places that it takes for aligned a thread has neighbours, of those in
        # rows of n it has not, and the two would meet in shared memory
        first += tl.minimum(T, 0)
    o_x = first + tl.arange(0, BLOCK)
    if PAIRED:
        i = tl.arange(0, BLOCK // 2)
        o_n = first + (i // 8 * 16 + i % 8)
    else:
        o_n = o_x
    return o_x, o_x < n, o_n, o_n < n, o_n + 8, o_n + 8 < n


@triton.jit
def packed(b, WORD: tl.constexpr):
    """Words of two neighbours."""
    low, high = tl.split(tl.reshape(b, [b.shape[0] // 2, 2]))
    return low.to(WORD) | (high.to(WORD) << b.dtype.primitive_bitwidth)


@triton.jit
def unpacked(w, PART: tl.constexpr):
    b = tl.join(w.to(PART), (w >> PART.primitive_bitwidth).to(PART))
    return tl.reshape(b, [w.shape[0] * 2])


@triton.jit
def words(b):
    """A block of a half type in words of four neighbours, which go from thread to thread as they are."""
    return packed(packed(b.to(tl.uint16, bitcast=True), tl.uint32), tl.uint64)


@triton.jit
def of_words(w, DTYPE: tl.constexpr):
    return unpacked(unpacked(w, tl.uint32), tl.uint16).to(DTYPE, bitcast=True)


@triton.jit
def halves(b):
    """A block as two: of every 16 neighbours the first 8 and the last 8. A thread that has 8 neighbours exchanges 4 of
    them with the next."""
    ROWS: tl.constexpr = b.shape[0] // 16
    low, high = tl.split(tl.permute(tl.reshape(words(b), [ROWS, 2, 2]), [0, 2, 1]))
    return of_words(tl.reshape(low, [ROWS * 2]), b.dtype), of_words(tl.reshape(high, [ROWS * 2]), b.dtype)


@triton.jit
def whole(low, high):
    """The block whose `halves` these are."""
    ROWS: tl.constexpr = low.shape[0] // 8
    w = tl.join(tl.reshape(words(low), [ROWS, 2]), tl.reshape(words(high), [ROWS, 2]))
    return of_words(tl.reshape(tl.permute(w, [0, 2, 1]), [ROWS * 4]), low.dtype)
