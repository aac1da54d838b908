"""Every arithmetic instruction of PTX against numpy, exact fractions and Python's integers, special values included."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from . import toolkit
from .ptx import run_ptx

pytestmark = pytest.mark.skipif(bool(toolkit.lacks_gxx()), reason=toolkit.lacks_gxx())

SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1.5,
    2.5,
    -2.5,
    3e38,
    -3e38,
    1e-40,
    -1e-45,
    math.inf,
    -math.inf,
    math.nan,
    0.1,
    65519.0,
]
REGISTERS = {
    "f32": "f32",
    "f64": "f64",
    "u32": "b32",
    "s32": "b32",
    "b32": "b32",
    "u64": "b64",
    "s64": "b64",
    "b64": "b64",
}
NUMPY = {"f32": np.float32, "f64": np.float64}


def kernel_of(types, result, instructions, n):
    """PTX that applies each instruction to every element of its inputs; the results are rows of n."""
    inputs = [f"in{i}" for i in range(len(types))]
    lines = [
        ".visible .entry k(" + ", ".join(f".param .u64 {name}" for name in [*inputs, "out"]) + ")",
        "{ .reg .b32 %i; .reg .b64 %p; .reg .b64 %o; .reg .b16 %h; .reg .pred %q;",
        f".reg .{REGISTERS[result]} %d; mov.u32 %i, %tid.x;",
    ]
    for name, ptx_type in zip([*inputs, "out"], [*types, result], strict=True):
        lines.append(f"ld.param.u64 %p, [{name}]; mul.wide.u32 %o, %i, {ptx_type[1:]}; shr.u64 %o, %o, 3;")
        lines.append("add.s64 %p, %p, %o;")
        if name != "out":
            lines.append(f".reg .{REGISTERS[ptx_type]} %{name}; ld.global.{ptx_type} %{name}, [%p];")
    for k, instruction in enumerate(instructions):
        lines.append(f"{instruction} st.global.{result} [%p+{k * n * int(result[1:]) // 8}], %d;")
    return "\n".join([*lines, "ret; }"])


def apply_all(types, result, instructions, inputs):
    """Each instruction's results for arrays of inputs."""
    n = len(inputs[0])
    tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in inputs]
    dtype = {"f32": np.float32, "f64": np.float64, "u32": np.int32, "s32": np.int32, "b32": np.int32}
    out = torch.from_numpy(np.full((len(instructions), n), -1, dtype.get(result, np.int64)))
    run_ptx(kernel_of(types, result, instructions, n), "k", 1, n, [*tensors, out])
    return dict(zip(instructions, out.numpy(), strict=True))


def apply(types, result, instruction, inputs):
    """One instruction's results for arrays of inputs."""
    return apply_all(types, result, [instruction], inputs)[instruction]


def pairs(dtype):
    values = np.concatenate([np.array(SPECIAL, dtype), np.random.default_rng(0).standard_normal(15).astype(dtype)])
    a, b = np.meshgrid(values, values)
    return a.ravel()[:1000].copy(), b.ravel()[:1000].copy()


def same_floats(got, wanted):
    """Equal bits, where any NaN equals any other."""
    assert got.dtype == wanted.dtype
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(got[~nan].view(f"i{got.itemsize}"), wanted[~nan].view(f"i{got.itemsize}"))


BINARY = {"add.rn": np.add, "sub.rn": np.subtract, "mul.rn": np.multiply, "div.rn": np.divide}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("ptx_type", NUMPY)
def test_float_arithmetic(ptx_type):
    a, b = pairs(NUMPY[ptx_type])
    instructions = {f"{op}.{ptx_type} %d, %in0, %in1;": function for op, function in BINARY.items()}
    for instruction, got in apply_all([ptx_type] * 2, ptx_type, instructions, [a, b]).items():
        same_floats(got, instructions[instruction](a, b))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("ptx_type", NUMPY)
def test_float_functions_of_one(ptx_type):
    a, _ = pairs(NUMPY[ptx_type])
    one = NUMPY[ptx_type](1)
    functions = {"sqrt.rn": np.sqrt, "rcp.rn": lambda x: one / x, "neg": np.negative, "abs": np.abs}
    instructions = {f"{op}.{ptx_type} %d, %in0;": function for op, function in functions.items()}
    for instruction, got in apply_all([ptx_type], ptx_type, instructions, [a]).items():
        same_floats(got, instructions[instruction](a))


def test_flush_to_zero():
    a, b = np.float32([1e-40, -1e-40, 2e-38, -1.5e-38]), np.float32([1, 1, 0.5, 0.5])
    got = apply(["f32"] * 2, "f32", "mul.rn.ftz.f32 %d, %in0, %in1;", [a, b])
    same_floats(got, np.float32([0.0, -0.0, 0.0, -0.0]))


def directed(exact, mode):
    """The float32 next to an exact fraction in a direction."""
    near = np.float32(float(exact))
    below = near if Fraction(float(near)) <= exact else np.nextafter(near, np.float32(-math.inf))
    above = near if Fraction(float(near)) >= exact else np.nextafter(near, np.float32(math.inf))
    toward_zero = below if exact > 0 else above
    return {"rm": below, "rp": above, "rz": toward_zero}[mode]


@pytest.mark.parametrize("mode", ["rz", "rm", "rp"])
def test_directed_rounding(mode):
    a, b = np.random.default_rng(1).standard_normal((2, 200)).astype(np.float32)
    exact = {"add": Fraction.__add__, "mul": Fraction.__mul__}
    instructions = {f"{op}.{mode}.f32 %d, %in0, %in1;": function for op, function in exact.items()}
    for instruction, got in apply_all(["f32"] * 2, "f32", instructions, [a, b]).items():
        fractions = zip(map(Fraction, a.tolist()), map(Fraction, b.tolist()), strict=True)
        same_floats(got, np.float32([directed(instructions[instruction](x, y), mode) for x, y in fractions]))


def test_fused_multiply_add_rounds_once():
    a, b = np.random.default_rng(2).standard_normal((2, 200)).astype(np.float32)
    c = -(a * b)
    got = apply(["f32"] * 3, "f32", "fma.rn.f32 %d, %in0, %in1, %in2;", [a, b, c])
    same_floats(got, (a.astype(np.float64) * b + c).astype(np.float32))
    assert np.any(got != 0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("op", ["min", "max"])
def test_minimum_and_maximum(op):
    a, b = pairs(np.float32)
    lesser, greater = ((a < b) | ((a == b) & np.signbit(a))), ((a > b) | ((a == b) & np.signbit(b)))
    picked = np.where(lesser if op == "min" else greater, a, b)
    quiet = np.where(np.isnan(a), b, np.where(np.isnan(b), a, picked))
    same_floats(apply(["f32"] * 2, "f32", f"{op}.f32 %d, %in0, %in1;", [a, b]), quiet)
    propagated = np.where(np.isnan(a) | np.isnan(b), np.float32(np.nan), picked)
    same_floats(apply(["f32"] * 2, "f32", f"{op}.NaN.f32 %d, %in0, %in1;", [a, b]), propagated)


APPROXIMATE = {"ex2": np.exp2, "lg2": np.log2, "rcp": np.reciprocal, "sqrt": np.sqrt, "rsqrt": lambda x: x**-0.5}


def test_approximate_functions():
    a = np.float32([0.25, 1, 1.5, 3, 10, 77.7])
    instructions = {f"{op}.approx.f32 %d, %in0;": function for op, function in APPROXIMATE.items()}
    for instruction, got in apply_all(["f32"], "f32", instructions, [a]).items():
        np.testing.assert_allclose(got, instructions[instruction](a.astype(np.float64)), rtol=1e-7)


CONDITIONS = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: (a < b) | (a > b),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    "equ": lambda a, b: ~((a < b) | (a > b)),
    "neu": lambda a, b: a != b,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
}


def test_float_conditions():
    a, b = pairs(np.float32)
    instructions = {
        f"setp.{how}.f32 %q, %in0, %in1; selp.u32 %d, 7, 3, %q;": wanted for how, wanted in CONDITIONS.items()
    }
    for instruction, got in apply_all(["f32"] * 2, "u32", instructions, [a, b]).items():
        np.testing.assert_array_equal(got, np.where(instructions[instruction](a, b), 7, 3), instruction)


INTEGERS = np.array([0, 1, -1, 2, -2, 31, 32, 33, 1000, -1000, 2**31 - 1, -(2**31), 0x12345678], np.int64)


def signed(value, bits):
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


INTEGER = {
    "add.s32": lambda a, b: a + b,
    "sub.s32": lambda a, b: a - b,
    "mul.lo.s32": lambda a, b: a * b,
    "mul.hi.s32": lambda a, b: a * b >> 32,
    "mul.hi.u32": lambda a, b: (a % 2**32) * (b % 2**32) >> 32,
    "min.s32": min,
    "max.s32": max,
    "max.u32": lambda a, b: max(a % 2**32, b % 2**32),
    "and.b32": lambda a, b: a & b,
    "or.b32": lambda a, b: a | b,
    "xor.b32": lambda a, b: a ^ b,
    "shl.b32": lambda a, b: a << min(b % 2**32, 32),
    "shr.s32": lambda a, b: a >> min(b % 2**32, 32),
    "shr.u32": lambda a, b: a % 2**32 >> min(b % 2**32, 32),
    "div.s32": lambda a, b: int(Fraction(a, b)),
    "rem.s32": lambda a, b: a - b * int(Fraction(a, b)),
    "div.u32": lambda a, b: (a % 2**32) // (b % 2**32),
}


@pytest.mark.parametrize("dividing", [False, True])
def test_integer_arithmetic(dividing):
    instructions = {f"{op} %d, %in0, %in1;": INTEGER[op] for op in INTEGER if op.startswith(("div", "rem")) == dividing}
    a, b = zip(*((a, b) for a in INTEGERS.tolist() for b in INTEGERS.tolist() if b or not dividing), strict=True)
    results = apply_all(["b32"] * 2, "b32", instructions, [np.array(a, np.int32), np.array(b, np.int32)])
    for instruction, got in results.items():
        wanted = map(instructions[instruction], a, b)
        np.testing.assert_array_equal(got, [signed(v, 32) for v in wanted], instruction)


WIDE = {
    "mul.wide.s32 %d, %in0, %in1;": lambda a, b, c: a * b,
    "mul.wide.u32 %d, %in0, %in1;": lambda a, b, c: (a % 2**32) * (b % 2**32),
    "mad.wide.s32 %d, %in0, %in1, %in2;": lambda a, b, c: a * b + c,
    "cvt.s64.s32 %d, %in0;": lambda a, b, c: a,
    "cvt.u64.u32 %d, %in0;": lambda a, b, c: a % 2**32,
    "cvt.s64.s8 %d, %in0;": lambda a, b, c: signed(a, 8),
    "mul.lo.s64 %d, %in2, %in2;": lambda a, b, c: c * c,
    "mul.hi.s64 %d, %in2, %in2;": lambda a, b, c: c * c >> 64,
    "mov.b64 %d, {%in0, %in1};": lambda a, b, c: a % 2**32 | b << 32,
}


def test_wide_integers():
    a, b = (m.ravel().astype(np.int32) for m in np.meshgrid(INTEGERS, INTEGERS))
    c = a.astype(np.int64) * 987654321987 + b
    for instruction, got in apply_all(["b32", "b32", "b64"], "b64", WIDE, [a, b, c]).items():
        wanted = map(WIDE[instruction], a.tolist(), b.tolist(), c.tolist())
        np.testing.assert_array_equal(got, [signed(v, 64) for v in wanted], instruction)


def prmt(a, b, c):
    pool = (a % 2**32).to_bytes(4, "little") + (b % 2**32).to_bytes(4, "little")
    picks = [c >> 4 * i & 15 for i in range(4)]
    return int.from_bytes([255 * (pool[p & 7] >> 7) if p & 8 else pool[p & 7] for p in picks], "little")


BITS = {
    "prmt.b32 %d, %in0, %in1, %in2;": prmt,
    "lop3.b32 %d, %in0, %in1, %in2, 0x78;": lambda a, b, c: a ^ (b & c),
    "shf.l.wrap.b32 %d, %in0, %in1, %in2;": lambda a, b, c: ((b << 32 | a % 2**32) << (c & 31)) >> 32,
    "shf.r.wrap.b32 %d, %in0, %in1, %in2;": lambda a, b, c: (b << 32 | a % 2**32) >> (c & 31),
    "bfe.u32 %d, %in0, 5, 9;": lambda a, b, c: a >> 5 & 511,
    "bfe.s32 %d, %in0, 5, 9;": lambda a, b, c: signed(a >> 5, 9),
    "bfi.b32 %d, %in0, %in1, 5, 9;": lambda a, b, c: b & ~(511 << 5) | (a & 511) << 5,
    "popc.b32 %d, %in0;": lambda a, b, c: (a % 2**32).bit_count(),
    "clz.b32 %d, %in0;": lambda a, b, c: 32 - (a % 2**32).bit_length(),
    "brev.b32 %d, %in0;": lambda a, b, c: int(f"{a % 2**32:032b}"[::-1], 2),
    "not.b32 %d, %in0;": lambda a, b, c: ~a,
    "mad.lo.s32 %d, %in0, %in1, %in2;": lambda a, b, c: a * b + c,
}


def test_bits():
    a, b = (m.ravel().astype(np.int32) for m in np.meshgrid(INTEGERS, INTEGERS))
    c = np.random.default_rng(3).integers(-(2**31), 2**31, a.size).astype(np.int32)
    for instruction, got in apply_all(["b32"] * 3, "b32", BITS, [a, b, c]).items():
        wanted = map(BITS[instruction], a.tolist(), b.tolist(), c.tolist())
        np.testing.assert_array_equal(got, [signed(v, 32) for v in wanted], instruction)


def all_halves(dtype):
    return torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)


@pytest.mark.parametrize(("ptx_type", "dtype"), [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_small_floats_widen_and_narrow(ptx_type, dtype):
    """All 65,536 values widen exactly; neighbours, midpoints and overflows narrow as torch narrows."""
    bits = np.arange(2**16, dtype=np.int32)
    widen = f"cvt.u16.u32 %h, %in0; cvt.f32.{ptx_type} %d, %h;"
    narrow = f"cvt.rn.{ptx_type}.f32 %h, %in0; cvt.u32.u16 %d, %h;"
    values = all_halves(dtype).float()
    middle = torch.nextafter(values, torch.tensor(torch.inf)), (values + values.roll(-1)) / 2, values * 1.0005
    for at in range(0, 2**16, 2**13):  # a sample of each eighth
        part = slice(at, at + 1000)
        same_floats(apply(["b32"], "f32", widen, [bits[part]]), values[part].numpy())
        for floats in (values, *middle):
            got = torch.from_numpy(apply(["f32"], "b32", narrow, [floats[part].numpy()])).to(torch.int16).view(dtype)
            torch.testing.assert_close(got, floats[part].to(dtype), rtol=0, atol=0, equal_nan=True)


SMALL = {"f16": torch.float16, "bf16": torch.bfloat16}


@pytest.mark.parametrize("ptx_type", SMALL)
def test_small_float_arithmetic(ptx_type):
    """Against exact fractions: one rounding, packed in pairs or not."""
    dtype, rng = SMALL[ptx_type], np.random.default_rng(5)
    small = [torch.from_numpy(rng.standard_normal(600) * 4.0 ** rng.integers(-4, 4, 600)).to(dtype) for _ in range(3)]
    exact = [list(map(Fraction, s.double().tolist())) for s in small]
    packed = [s.view(torch.int32).numpy() for s in small]
    functions = {
        "add.rn": lambda a, b, c: a + b,
        "sub.rn": lambda a, b, c: a - b,
        "mul.rn": lambda a, b, c: a * b,
        "fma.rn": lambda a, b, c: a * b + c,
    }
    for op, function in functions.items():
        operands = "%in0, %in1, %in2" if op == "fma.rn" else "%in0, %in1"
        got = apply(["b32"] * 3, "b32", f"{op}.{ptx_type}x2 %d, {operands};", packed)
        wanted = [nearest(function(*x), dtype) for x in zip(*exact, strict=True)]
        torch.testing.assert_close(torch.from_numpy(got).view(dtype), torch.stack(wanted), rtol=0, atol=0)
    scalar = f"cvt.u16.u32 %h, %in0; add.rn.{ptx_type} %h, %h, %h; cvt.u32.u16 %d, %h;"
    got = torch.from_numpy(apply(["b32"], "b32", scalar, [packed[0]])).view(dtype)[::2]
    torch.testing.assert_close(got, small[0][::2] * 2, rtol=0, atol=0)


def nearest(exact, dtype):
    """The value of a type nearest to a fraction, ties to even."""
    near = torch.tensor(float(exact), dtype=torch.float64).to(dtype)
    step = torch.tensor(1, dtype=torch.int16)
    around = [near, (near.view(torch.int16) + step).view(dtype), (near.view(torch.int16) - step).view(dtype)]
    return min(around, key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view(torch.int16)) % 2))


CONVERSIONS = {
    "cvt.rni.s32.f32": np.rint,
    "cvt.rzi.s32.f32": np.trunc,
    "cvt.rmi.s32.f32": np.floor,
    "cvt.rpi.s32.f32": np.ceil,
}


def test_float_to_integer_saturates():
    a, _ = pairs(np.float32)
    instructions = {f"{op} %d, %in0;": function for op, function in CONVERSIONS.items()}
    for instruction, got in apply_all(["f32"], "s32", instructions, [a]).items():
        clipped = np.clip(instructions[instruction](a.astype(np.float64)), -(2**31), 2**31 - 1)
        np.testing.assert_array_equal(got, np.nan_to_num(clipped, nan=0).astype(np.int64), instruction)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_float_conversions():
    a = np.random.default_rng(4).standard_normal(500) * 10.0 ** np.arange(-50, 50).repeat(5)
    same_floats(apply(["f64"], "f32", "cvt.rn.f32.f64 %d, %in0;", [a]), a.astype(np.float32))
    same_floats(apply(["f32"], "f64", "cvt.f64.f32 %d, %in0;", [np.float32(a)]), np.float32(a).astype(np.float64))
    b = INTEGERS.astype(np.int32)
    same_floats(apply(["s32"], "f32", "cvt.rn.f32.s32 %d, %in0;", [b]), b.astype(np.float32))
    same_floats(apply(["u32"], "f32", "cvt.rn.f32.u32 %d, %in0;", [b]), b.view(np.uint32).astype(np.float32))
    same_floats(apply(["f32"], "f32", "cvt.rmi.f32.f32 %d, %in0;", [np.float32(a)]), np.floor(np.float32(a)))
    zero = np.float32(0)  # makes -0 positive
    same_floats(
        apply(["f32"], "f32", "cvt.sat.f32.f32 %d, %in0;", [np.float32(a)]), np.clip(np.float32(a), 0, 1) + zero
    )


LOAD_MATRICES = """
.visible .entry k(.param .u64 rows, .param .u64 in, .param .u64 out)
{ .reg .b32 %i; .reg .b32 %a; .reg .b32 %w<4>; .reg .b64 %p; .reg .b64 %o;
.shared .align 16 .b8 tile[512];
mov.u32 %i, %tid.x;
ld.param.u64 %p, [in]; mul.wide.u32 %o, %i, 16; add.s64 %p, %p, %o; ld.global.v4.b32 {%w0, %w1, %w2, %w3}, [%p];
mov.u32 %a, tile; mad.lo.u32 %a, %i, 16, %a; st.shared.v4.b32 [%a], {%w0, %w1, %w2, %w3};
bar.sync 0;
ld.param.u64 %p, [rows]; mul.wide.u32 %o, %i, 4; add.s64 %p, %p, %o; ld.global.b32 %i, [%p];
mov.u32 %a, tile; mad.lo.u32 %a, %i, 16, %a;
ldmatrix.sync.aligned.m8n8.xCOUNT.shared.b16 {REGISTERS}, [%a];
ld.param.u64 %p, [out]; mul.lo.u64 %o, %o, 4; add.s64 %p, %p, %o; st.global.v4.b32 [%p], {%w0, %w1, %w2, %w3};
ret; }
"""


@pytest.mark.parametrize("n", [1, 2, 4])
def test_matrices(n):
    """Lane 8i + r names row r of matrix i; lane l gets word l % 4 of row l // 4 of each. Other lanes name nothing."""
    tile, out = torch.randint(2**31, (32, 4), dtype=torch.int32), torch.zeros(32, 4, dtype=torch.int32)
    rows = torch.randperm(32, dtype=torch.int32)
    rows[8 * n :] = 10**6
    text = LOAD_MATRICES.replace("COUNT", str(n)).replace("REGISTERS", ", ".join(f"%w{i}" for i in range(n)))
    run_ptx(text, "k", 1, 32, [rows, tile, out])
    lane = torch.arange(32)
    wanted = torch.stack([tile[rows[8 * i + lane // 4], lane % 4] for i in range(n)], 1)
    torch.testing.assert_close(out[:, :n], wanted, rtol=0, atol=0)
