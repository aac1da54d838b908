"""The repaired interpreter rounds to bfloat16 as torch does, and refuses to compute in it."""

import pytest
import torch

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from . import triton_interpreter  # noqa: E402


@triton.jit
def convert(x_p, y_p, N: tl.constexpr):
    o = tl.arange(0, N)
    tl.store(y_p + o, tl.load(x_p + o).to(y_p.dtype.element_ty))


@triton.jit
def double(x_p, y_p, N: tl.constexpr):
    o = tl.arange(0, N)
    b = tl.load(x_p + o)
    tl.store(y_p + o, b + b)


@triton.jit
def product(x_p, y_p, out_p, N: tl.constexpr):
    o = tl.arange(0, N)
    o_square = o[:, None] * N + o[None, :]
    tl.store(out_p + o_square, tl.dot(tl.load(x_p + o_square), tl.load(y_p + o_square)))


pytestmark = pytest.mark.skipif(isinstance(convert, triton.JITFunction), reason="needs TRITON_INTERPRET=1")

TINY = torch.finfo(torch.bfloat16).smallest_normal
CASES = {
    "ordinary": torch.randn(4096),
    "every exponent": torch.randint(0, 2**31, (4096,), dtype=torch.int32).view(torch.float32),
    "ties": (torch.arange(4096, dtype=torch.int32) * 0x8000 + 0x3F800000).view(torch.float32),
    "beside ties": (torch.arange(4096, dtype=torch.int32) // 3 * 0x8000 + 0x3F800000 - 1).view(torch.float32)
    + torch.arange(4096).remainder(3) * 2**-23,
    "subnormal": torch.linspace(-2 * TINY, 2 * TINY, 4096),
    "overflow": torch.linspace(0.99, 1, 4096) * torch.finfo(torch.float32).max,
    "special": torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, -torch.nan, 1e-45, -1e-45]),
}


def converted(x, dtype):
    y = torch.empty_like(x, dtype=dtype)
    convert[(1,)](x, y, len(x))
    return y


def assert_same_bits(actual, expected):
    """Equal to the bit, where a NaN equals a NaN."""
    nan = expected.isnan()
    assert torch.equal(actual.isnan(), nan)
    assert torch.equal(actual[~nan].view(torch.int16), expected[~nan].view(torch.int16))


@pytest.mark.parametrize("x", CASES.values(), ids=CASES)
def test_float32_rounds_to_bfloat16_as_in_torch(x):
    assert_same_bits(converted(x, torch.bfloat16), x.bfloat16())


def test_every_bfloat16_widens_exactly():
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    torch.testing.assert_close(converted(x, torch.float32), x.float(), rtol=0, atol=0, equal_nan=True)


def test_the_control_catches_truncation():
    x = CASES["ordinary"]
    truncated = (x.view(torch.int32) & -0x10000).view(torch.float32).bfloat16()
    with pytest.raises(AssertionError):
        assert_same_bits(truncated, x.bfloat16())


def test_arithmetic_in_bfloat16_is_refused():
    x = torch.ones(8, dtype=torch.bfloat16)
    with pytest.raises(triton.runtime.errors.InterpreterError, match="arithmetic in bfloat16"):
        double[(1,)](x, torch.empty_like(x), 8)


def test_dot_takes_bfloat16():
    x, y, out = torch.randn(16, 16).bfloat16(), torch.randn(16, 16).bfloat16(), torch.empty(16, 16)
    product[(1,)](x, y, out, 16)
    torch.testing.assert_close(out, x.float() @ y.float())


def test_casts_it_does_not_know_are_refused():
    with pytest.raises(triton.runtime.errors.InterpreterError, match="not fp64 to bf16"):
        converted(torch.ones(8, dtype=torch.float64), torch.bfloat16)


def test_ties_go_to_even_in_the_bits():
    ties = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8])
    assert triton_interpreter.to_bfloat16_bits(ties.numpy()).tolist() == [0x3F80, 0x3F82]
