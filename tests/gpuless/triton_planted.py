"""Kernels with the faults that the checks of compiled Triton must find.

python tests/gpuless/triton_planted.py FOLDER
"""

import sys
from pathlib import Path

import torch
import triton
import triton.language as tl
from triton_build import build, recorded_launches, variants

FUSED = {"num_warps": 4}
UNFUSED = FUSED | {"enable_fp_fusion": False}


@triton.jit
def scalar_access(x_p, y_p, n: tl.int64, BLOCK: tl.constexpr):
    o = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_p + o, tl.load(x_p + o + 1, o < n), o < n)


@triton.jit
def multiply_add(x_p, y_p, n: tl.int64, BLOCK: tl.constexpr):
    o = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    b = tl.load(x_p + o, o < n)
    tl.store(y_p + o, b * b + b, o < n)


@triton.jit
def specialised_steps(x_p, T, n: tl.int64, BLOCK: tl.constexpr):
    o = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    for t in range(T):
        tl.store(x_p + t * n + o, t, o < n)


def planted():
    """One variant of each fault."""
    x, half = torch.empty(2048), torch.empty(2048, dtype=torch.bfloat16)
    with recorded_launches() as recorded:
        scalar_access[(2,)](x, x, 2048, BLOCK=1024, **UNFUSED)
        multiply_add[(2,)](x, x, 2048, BLOCK=1024, **FUSED)
        multiply_add[(2,)](half, half, 2048, BLOCK=1024, **UNFUSED)
    names = ("scalar_access", "fused", "half_arithmetic")
    yield from (variant._replace(name=name) for name, variant in zip(names, recorded, strict=True))
    (starved,) = variants("forward-ndot-soft-sequence-float64")
    yield starved._replace(name="spills", options=starved.options | {"maxnreg": 32})


def specialised(T):
    """What a launch of T steps asks for where T is specialised."""
    with recorded_launches() as recorded:
        specialised_steps[(2,)](torch.empty(2048), T, 2048, BLOCK=1024)
    return recorded


if __name__ == "__main__":
    build(((variant, 90) for variant in planted()), Path(sys.argv[1]))
