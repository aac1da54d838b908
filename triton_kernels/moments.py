"""Moments of a whole tensor: every program leaves mean and M2 of its block in workspace [*, programs, 2], float64, and
another kernel takes them together."""

import triton
import triton.language as tl


@triton.jit
def block_counts(n, o_block, BLOCK: tl.constexpr):
    """Neurons of some blocks; none past the end."""
    return tl.maximum(tl.minimum(n - o_block * BLOCK, BLOCK), 0).to(tl.float64)


@triton.jit
def store_block_moments(workspace_p, row, b_u, m_n, n):
    """Those of this program's block, relative to its first value, so that a constant has no spread."""
    BLOCK: tl.constexpr = b_u.shape[0]
    i_block = tl.program_id(0).to(tl.int64)
    origin = tl.sum(tl.where(tl.arange(0, BLOCK) == 0, b_u, 0.0), 0).to(tl.float64)
    b_d = tl.where(m_n, b_u.to(tl.float64) - origin, 0.0)
    shift = tl.sum(b_d, 0) / block_counts(n, i_block, BLOCK)
    b_d = tl.where(m_n, b_d - shift, 0.0)
    workspace_p += 2 * (row * tl.num_programs(0) + i_block)
    tl.store(workspace_p, origin + shift)
    tl.store(workspace_p + 1, tl.sum(b_d * b_d, 0))


@triton.jit
def merged(workspace_p, n, BLOCK: tl.constexpr):
    """Mean and M2 of all blocks of BLOCK neurons."""
    ROWS: tl.constexpr = 512
    blocks, first = tl.cdiv(n, BLOCK), tl.load(workspace_p)
    b_sum, b_m2 = tl.zeros([ROWS], tl.float64), tl.zeros([ROWS], tl.float64)
    for i in range(0, blocks, ROWS):
        o_i = i + tl.arange(0, ROWS)
        b_sum += block_counts(n, o_i, BLOCK) * (tl.load(workspace_p + 2 * o_i, o_i < blocks, first) - first)
    mean = first + tl.sum(b_sum, 0) / n.to(tl.float64)
    for i in range(0, blocks, ROWS):
        o_i = i + tl.arange(0, ROWS)
        b_delta = tl.load(workspace_p + 2 * o_i, o_i < blocks, mean) - mean
        b_m2 += tl.load(workspace_p + 2 * o_i + 1, o_i < blocks, 0.0) + block_counts(n, o_i, BLOCK) * (
            b_delta * b_delta
        )
    return mean, tl.sum(b_m2, 0)
