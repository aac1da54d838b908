"""Small Triton kernels; as a script, writes their PTX for sm_80 as JSON, which needs no device and no driver."""

import json
import sys

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def scale(x, out, n, by, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < n, other=0.0).to(tl.float32) * by
    tl.store(out + i, value.to(out.dtype.element_ty), mask=i < n)


@triton.jit
def row_sum(x, out, columns, BLOCK: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    value = tl.load(x + row * columns + i, mask=i < columns, other=0.0)
    tl.store(out + row, tl.sum(value, 0))


ALIGNED = [["tt.divisibility", 16]]
KERNELS = {
    "scale_fp32": (scale, {"x": "*fp32", "out": "*fp32", "n": "i32", "by": "fp32"}),
    "scale_bf16": (scale, {"x": "*bf16", "out": "*bf16", "n": "i32", "by": "fp32"}),
    "row_sum": (row_sum, {"x": "*fp32", "out": "*fp32", "columns": "i32"}),
}


def compile_kernel(kernel, types, block):
    """PTX and launch data of one kernel."""
    source = ASTSource(
        fn=kernel,
        signature={**types, "BLOCK": "constexpr"},
        constexprs={"BLOCK": block},
        attrs={(0,): ALIGNED, (1,): ALIGNED},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": False})
    return {
        "ptx": compiled.asm["ptx"],
        "kernel": compiled.metadata.name,
        "shared": compiled.metadata.shared,
        "block": 32 * compiled.metadata.num_warps,
    }


if __name__ == "__main__":
    json.dump({name: compile_kernel(*kernel, 1024) for name, kernel in KERNELS.items()}, sys.stdout)
