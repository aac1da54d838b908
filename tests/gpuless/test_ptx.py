"""PTX that nvcc and Triton emit, run on the CPU: right results, planted bugs caught, memory traffic counted."""

import json
import os
import struct
import subprocess
import sys

import pytest
import torch

from . import toolkit
from .ptx import PtxError, entry_names, run_ptx
from .ptx.parse import parse

pytestmark = pytest.mark.skipif(bool(toolkit.lacks_gxx()), reason=toolkit.lacks_gxx())
needs_nvcc = pytest.mark.skipif(bool(toolkit.lacks_nvcc()), reason=toolkit.lacks_nvcc())

ORDERS = [0, 1, 7]
HERE = toolkit.INCLUDE.parent


def unwritten(*shape, dtype=torch.float32):
    return torch.full(shape, torch.nan, dtype=dtype)


def same(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)


# what nvcc emits


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """PTX of samples.cu"""
    return toolkit.compile_ptx(HERE / "samples.cu", tmp_path_factory.mktemp("ptx") / "samples.ptx")


@needs_nvcc
@pytest.mark.parametrize("flavour", toolkit.FLAVOURS)
@pytest.mark.parametrize("order", ORDERS)
def test_vectors(samples, order, flavour):
    a, b, out = torch.randn(400), torch.randn(400), unwritten(400)
    run_ptx(samples, "add_vectors", 2, 64, [a, b, out, 100], order=order, flavour=flavour)
    same(out, a + b)


@needs_nvcc
@pytest.mark.parametrize("flavour", toolkit.FLAVOURS)
@pytest.mark.parametrize("order", ORDERS)
def test_block_reduction(samples, order, flavour):
    x, out = torch.randn(500), unwritten(2)
    run_ptx(samples, "sum_blocks", 2, 256, [x, out, 500], order=order, flavour=flavour)
    sums = torch.nn.functional.pad(x, (0, 12)).view(2, 8, 32)
    for lanes in (16, 8, 4, 2, 1):
        sums = sums[..., :lanes] + sums[..., lanes:]
    sums = sums.squeeze(-1)
    for lanes in (4, 2, 1):
        sums = sums[..., :lanes] + sums[..., lanes:]
    same(out, sums.squeeze(-1))


@needs_nvcc
@pytest.mark.parametrize(("kernel", "dtype"), [("round_half", torch.float16), ("round_bfloat16", torch.bfloat16)])
def test_round_trip(samples, kernel, dtype):
    x = torch.cat([torch.randn(300), torch.tensor([0.0, -0.0, torch.inf, torch.nan, 1e-6, 6e-8, 65520.0, 1e-40])])
    out, small = unwritten(308), unwritten(308, dtype=dtype)
    run_ptx(samples, kernel, 3, 128, [x, out, small, 308])
    same(small, x.to(dtype))
    same(out, x.to(dtype).float() * 3)


@needs_nvcc
def test_division_and_root(samples):
    a, b = torch.randn(1000).abs() * 1e3, torch.randn(1000)
    quotient, root, wide = unwritten(1000), unwritten(1000), unwritten(1000, dtype=torch.float64)
    run_ptx(samples, "divide", 4, 256, [a, b, quotient, root, wide, 1000])
    same(quotient, a / b)
    same(root, a.double().sqrt().float())  # torch may round a float root wrongly
    same(wide, a.double() / b.double())


@needs_nvcc
def test_wide_offsets(samples):
    columns, out = 2**40 + 12345, torch.full((100,), -1)
    run_ptx(samples, "offsets", 1, 128, [out, 100, columns])
    assert out.tolist() == [i * columns % 1000003 + i * columns // 7 for i in range(100)]


@needs_nvcc
@pytest.mark.parametrize("negate", [False, True])
def test_struct_by_value(samples, negate):
    x, y = torch.randn(300), torch.randn(300)
    wanted = y + (-0.5 if negate else 0.5) * x
    k = struct.pack("@PdPq?0q", x.data_ptr(), 0.5, y.data_ptr(), 300, negate)
    run_ptx(samples, "axpy", (3, 1, 1), (128, 1, 1), [k], buffers=[x, y])
    same(y, wanted)


@needs_nvcc
def test_names_of_kernels(samples):
    names = entry_names(samples)
    assert "axpy" in names
    with pytest.raises(PtxError, match="no kernel nothing; there are"):
        run_ptx(samples, "nothing", 1, 32, [])


# what Triton emits


@pytest.fixture(scope="module")
def triton_samples():
    """PTX and launch data of samples_triton.py, compiled where no interpreter is on"""
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(HERE / "samples_triton.py")]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def run_triton(sample, grid, *args, **options):
    """Runs a compiled Triton kernel, whose last parameters are scratch memory that it does not use."""
    scratch = len(parse(sample["ptx"], sample["kernel"]).params) - len(args)
    assert scratch in (1, 2)  # of Triton before 3.6 and since
    args = [*args, *[None] * scratch]
    return run_ptx(
        sample["ptx"], sample["kernel"], grid, sample["block"], args, shared=sample["shared"], **options
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_triton_masked_elements(triton_samples, dtype):
    x, out = torch.randn(2000).to(dtype), unwritten(2000, dtype=dtype)
    sample = triton_samples["scale_fp32" if dtype == torch.float32 else "scale_bf16"]
    run_triton(sample, 2, x, out, 2000, 0.3, flavour="address")
    same(out, (x.float() * torch.tensor(0.3)).to(dtype))


@pytest.mark.parametrize("flavour", toolkit.FLAVOURS)
@pytest.mark.parametrize("order", ORDERS)
def test_triton_sum(triton_samples, order, flavour):
    x, out = torch.randint(-1000, 1000, (2, 999)).float(), unwritten(2)  # integers: exact in any order
    run_triton(triton_samples["row_sum"], 2, x, out, 999, order=order, flavour=flavour)
    same(out, x.sum(1))


# planted bugs

ADD_ONE = """
.visible .entry add_one(.param .u64 in, .param .u64 out, .param .u32 n)
{
  .reg .pred %p<2>; .reg .b32 %r<6>; .reg .b64 %rd<6>; .reg .f32 %f<3>;
  ld.param.u64 %rd1, [in];
  ld.param.u64 %rd2, [out];
  ld.param.u32 %r1, [n];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.s32 %p1, %r5, %r1;
  @%p1 bra done;
  mul.wide.s32 %rd3, %r5, 4;
  add.s64 %rd4, %rd1, %rd3;
  add.s64 %rd5, %rd2, %rd3;
  ld.global.f32 %f1, [%rd4];
  add.rn.f32 %f2, %f1, 0f3F800000;
  st.global.f32 [%rd5], %f2;
done:
  ret;
}
"""

REVERSE = """
.visible .entry reverse(.param .u64 in, .param .u64 out)
{
  .reg .pred %p<2>; .reg .b32 %r<6>; .reg .b64 %rd<6>; .reg .f32 %f<3>;
  .shared .align 4 .b8 tile[256];
  ld.param.u64 %rd1, [in];
  ld.param.u64 %rd2, [out];
  mov.u32 %r1, %tid.x;
  setp.lt.u32 %p1, %r1, 32;
  mul.wide.u32 %rd3, %r1, 4;
  add.s64 %rd4, %rd1, %rd3;
  add.s64 %rd5, %rd2, %rd3;
  mov.u32 %r2, tile;
  shl.b32 %r3, %r1, 2;
  add.s32 %r4, %r2, %r3;
  sub.s32 %r5, %r2, %r3;
  ld.global.f32 %f1, [%rd4];
  st.shared.f32 [%r4], %f1;
  bar.sync 0;
  ld.shared.f32 %f2, [%r5+252];
  st.global.f32 [%rd5], %f2;
  ret;
}
"""


def planted(text, old, new):
    assert text.count(old) == 1
    return text.replace(old, new)


def add_one(text, n=99, flavour="plain"):
    x, out = torch.randn(n), unwritten(n)
    run_ptx(text, "add_one", 2, 64, [x, out, n], flavour=flavour)
    return out, x + 1


def reverse(text, order=0, flavour="plain"):
    x, out = torch.randn(64), unwritten(64)
    run_ptx(text, "reverse", 1, 64, [x, out], order=order, flavour=flavour)
    return out, x.flip(0)


@pytest.mark.parametrize("flavour", toolkit.FLAVOURS)
def test_clean_twins_pass(flavour):
    same(*add_one(ADD_ONE, flavour=flavour))
    for order in ORDERS:
        same(*reverse(REVERSE, order, flavour))


def test_access_out_of_bounds_is_caught():
    with pytest.raises(PtxError, match=r"heap-buffer-overflow[\s\S]*add_one.ptx:17"):
        add_one(planted(ADD_ONE, "setp.ge.s32", "setp.gt.s32"), flavour="address")


def test_shared_access_out_of_bounds_is_caught():
    with pytest.raises(PtxError, match=r"out of bounds: shared array 0 of 256 bytes at byte 256, PTX line 20"):
        reverse(planted(REVERSE, "[%r5+252]", "[%r5+256]"))


@pytest.mark.parametrize("order", ORDERS)
def test_missing_barrier_is_caught(order):
    with pytest.raises(PtxError, match="data race"):
        reverse(planted(REVERSE, "bar.sync 0;", ""), order, "thread")


def test_divergent_barrier_is_caught():
    with pytest.raises(PtxError, match=r"divergent barrier: .* \(block 0,0,0 thread \d+,0,0\)"):
        reverse(planted(REVERSE, "bar.sync 0;", "@%p1 bar.sync 0;"))


@needs_nvcc
def test_misaligned_vector_is_caught(samples):
    a, b, out = torch.randn(401)[1:], torch.randn(400), unwritten(400)
    with pytest.raises(PtxError, match=r"misaligned address .* for 16 bytes, PTX line \d+"):
        run_ptx(samples, "add_vectors", 2, 64, [a, b, out, 100])


def test_wrong_tail_is_caught():
    out, wanted = add_one(
        planted(ADD_ONE, "setp.ge.s32 %p1, %r5, %r1;", "add.s32 %r2, %r5, 1; setp.ge.s32 %p1, %r2, %r1;")
    )
    same(out[:-1], wanted[:-1])
    assert out[-1].isnan()


def test_uninitialised_shared_memory_is_caught():
    out, _ = reverse(planted(REVERSE, "st.shared.f32", "@%p1 st.shared.f32"))
    assert out[:32].isnan().all()
    assert not out[32:].isnan().any()


UNKNOWN = {
    "instruction": "frobnicate.f32 %f2, %f1, 0f3F800000;",
    "modifier": "add.rn.sat.f32 %f2, %f1, 0f3F800000;",
    "type": "add.rn.f128 %f2, %f1, 0f3F800000;",
    "space": "ld.local.f32 %f2, [%rd4];",
    "call": "call.uni helper, (%f2);",
}


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_instruction_is_named(text):
    opcode = text.split()[0]
    with pytest.raises(PtxError, match=rf"unknown instruction: {opcode} .*PTX line 18"):
        add_one(planted(ADD_ONE, "add.rn.f32 %f2, %f1, 0f3F800000;", text))


def test_unknown_operand_is_named():
    with pytest.raises(PtxError, match=r"unknown operand: %clock64"):
        add_one(planted(ADD_ONE, "%ctaid.x", "%clock64"))


def test_arguments_are_checked():
    x = torch.randn(10)
    with pytest.raises(PtxError, match="takes 3 arguments, not 2"):
        run_ptx(ADD_ONE, "add_one", 1, 32, [x, x])
    with pytest.raises(PtxError, match="n has 4 bytes, the argument 8"):
        run_ptx(ADD_ONE, "add_one", 1, 32, [x, x, bytes(8)])
    with pytest.raises(PtxError, match="tensors overlap"):
        run_ptx(ADD_ONE, "add_one", 1, 32, [x, x[5:], 5])
    with pytest.raises(PtxError, match="contiguous"):
        run_ptx(ADD_ONE, "add_one", 1, 32, [x, torch.randn(10, 2)[:, 0], 5])


# counts


@needs_nvcc
def test_vector_traffic_is_minimal(samples):
    a, out = torch.randn(4096), unwritten(4096)
    counts = run_ptx(samples, "add_vectors", 4, 256, [a, a, out, 1024], count=True)
    assert (counts.bytes_read, counts.bytes_written) == (8 * 4096, 4 * 4096)
    assert counts.sector_use == 1
    assert counts.requests == 3 * 4096 // 128
    assert counts.threads == 1024
    assert counts.fmas == 0


@needs_nvcc
def test_copy_moves_eight_bytes_an_element(samples):
    x, out = torch.randn(1024), unwritten(1024)
    counts = run_ptx(samples, "copy_strided", 4, 256, [x, out, 1024, 1], count=True)
    assert counts.bytes_read + counts.bytes_written == 8 * 1024
    assert counts.sector_use == 1
    same(out, x)


@needs_nvcc
def test_strided_access_wastes_sectors(samples):
    x, out = torch.randn(4096), unwritten(1024)
    counts = run_ptx(samples, "copy_strided", 4, 256, [x, out, 1024, 4], count=True)
    same(out, x[::4])
    assert counts.bytes_read == 4 * 1024
    assert counts.sectors == 4096 // 8 + 1024 // 8
    assert counts.sector_use == 8 * 1024 / (32 * counts.sectors)


def test_instructions_and_fused_multiply_adds_are_counted():
    text = planted(ADD_ONE, "add.rn.f32 %f2, %f1, 0f3F800000;", "fma.rn.f32 %f2, %f1, 0f3F800000, 0f3F800000;")
    x, out = torch.randn(99), unwritten(99)
    counts = run_ptx(text, "add_one", 2, 64, [x, out, 99], count=True)
    same(out, x + 1)
    assert counts.fmas == 99
    assert counts.instructions == 128 * 9 + 99 * 6 + 128
