"""The PTX that Triton makes of its kernels against the reference. test_triton_ptx.py runs this, in processes without
the interpreter."""

import re
from dataclasses import replace

import pytest
import torch

from fastsnn import backends, surrogate
from fastsnn.functional import lif_sequence, standardize
from fastsnn.stats import Moments, Running, Sequence, Used
from fastsnn.types import RULES, LIFParams, LIFState, MPDRGradient, Saved, state_dtype

from ..cases import DTYPES, assert_same, current, dtype_id, keep_of, on_reference, sequence, steps
from . import cuda_host, triton_ptx

pytestmark = pytest.mark.usefixtures("poisoned")

KERNELS = backends.triton.KERNELS
SIZES = 2064, 1031  # neurons: divisible by 16, as compiled for, and a third block; neither
HARD = [(rule, v_reset) for rule in RULES for v_reset in (None, 0.25) if v_reset is None or not RULES[rule].soft_reset]


@pytest.fixture(params=cuda_host.ORDERS)
def order(request):
    return cuda_host.ORDERS[request.param]


@pytest.fixture(autouse=True)
def launched(order):
    """Every test runs on PTX, and launches at least one kernel."""
    with triton_ptx.running(order) as launched:
        yield launched
    assert launched


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize(("rule", "v_reset"), HARD)
def test_forward(rule, v_reset, dtype, n):
    x = current(3, n, dtype=dtype)
    config = {"rule": rule, "v_reset": v_reset}
    assert_same(steps(x, **config), on_reference(steps, x, **config))
    config["keep"] = keep_of(x[0])
    assert_same(sequence(x, **config), on_reference(sequence, x, **config))


def operands(dtype, n, T=3):
    """Gradients of the spikes and a mask in x's and the state's dtype, u of every step, one potential."""
    x = current(T, n, dtype=dtype)
    u = current(T, n, dtype=state_dtype(dtype))
    return x, torch.randn(T, n).to(dtype), keep_of(x[0]), u, current(n, dtype=u.dtype)


def assert_gradients(p, saved, g_s, *through_time):
    wanted = backends.reference.KERNELS["lif"].backward(p, saved, g_s, *through_time)
    assert_same(KERNELS["lif"].backward(p, saved, g_s, *through_time), wanted)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("v_reset", [None, 0.25])
def test_online_backward(v_reset, dtype, n):
    """A step from its u; a sequence from x."""
    p = LIFParams(rule="sltt", v_reset=v_reset, surrogate=surrogate.Triangle(2.0))
    x, g_s, keep, u, potential = operands(dtype, n)
    assert_gradients(p, Saved(dtype, False, u=u[0], keep=keep), g_s[0])
    assert_gradients(p, Saved(dtype, True, x=x, potential=potential, keep=keep), g_s)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("v_reset", [None, 0.25])
def test_bptt_backward(v_reset, dtype, n):
    """With every optional gradient."""
    p = LIFParams(rule="bptt", v_reset=v_reset, surrogate=surrogate.Triangle(2.0))
    _, g_s, keep, u, _ = operands(dtype, n)
    g_v, g_v_seq = torch.randn(n).to(u.dtype), torch.randn(u.shape).to(u.dtype)
    assert_gradients(p, Saved(dtype, True, u=u, keep=keep), g_s, g_v, g_v_seq, True)


@pytest.mark.parametrize("rule", ["bptt", "sltt"])
def test_gradient_of_a_sequence(rule):
    """Forward and backward as autograd calls them."""
    x, g = current(3, 1031), torch.randn(3, 1031)
    config = {"rule": rule, "v_reset": None, "surrogate_function": surrogate.Triangle(2.0)}

    def gradient():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(lif_sequence(leaf, **config).spikes, leaf, g)

    assert_same(gradient(), on_reference(gradient))


def standardized(cols):
    weight, gain, g = torch.randn(5, cols).requires_grad_(), torch.rand(5, 1).requires_grad_(), torch.randn(5, cols)

    def run():
        out = standardize(weight, gain)
        return (out.detach(), *torch.autograd.grad(out, (weight, gain), g))

    return run


@pytest.mark.parametrize("cols", [64, 39])
def test_standardize(cols):
    run = standardized(cols)
    assert_same(run(), on_reference(run), rtol=2e-7, atol=1e-7)


HALF = {"rtol": 2**-10, "atol": 1e-6}  # one rounding of the result
CLOSE = {torch.float32: {"rtol": 1e-6, "atol": 1e-6}, torch.float16: HALF}
EXACT = surrogate.Triangle(2.0)


def assert_alike(family, call, **tolerance):
    """call(kernels) with Triton's and with the reference's."""
    assert_same(call(KERNELS[family]), call(backends.reference.KERNELS[family]), **tolerance)


def vectors(count, channels):
    return torch.rand(count, channels, dtype=torch.float64) + 0.5


def ending(channels, max_ratio):
    """The second step of a sequence, which ends it, and what it writes to."""
    before = Moments(torch.tensor(40.0).double(), *vectors(2, channels))
    sequence = Sequence(2, before, False, True, 0.1, torch.tensor(3), None)
    return Running(*torch.rand(2, channels).add(0.5), 1e-4, max_ratio, True, sequence)


def written(running):
    """The same in other memory: a kernel writes to it."""
    return running._replace(mean=running.mean.clone(), variance=running.variance.clone())


@pytest.mark.parametrize("max_ratio", [None, 20.0, 1.0], ids=["running", "within", "exceeded"])
@pytest.mark.parametrize("dtype", CLOSE, ids=dtype_id)
@pytest.mark.parametrize("shape", [(5, 3, 700), (300, 70)], ids=str)
def test_osr(shape, dtype, max_ratio):
    x, channels = current(*shape, dtype=dtype), shape[1]
    learned, running = torch.randn(2, channels), ending(channels, max_ratio)
    p, keep = LIFParams(rule="ndot", v_reset=None, surrogate=EXACT), keep_of(x)

    def step(forward):
        given = written(running)
        out, settled = forward(given)
        left = settled.used.statistics, settled.used.n, *settled.total, given.mean, given.variance
        return [out.float(), *left] if isinstance(out, torch.Tensor) else [out.u, out.spikes.float(), *out.slots, *left]

    close = CLOSE[dtype] if max_ratio != 1.0 else HALF
    assert_alike("osr", lambda kernels: step(lambda given: kernels.normalize(x, *learned, given)), **close)
    state = LIFState(keep=keep)
    assert_alike("osr", lambda kernels: step(lambda given: kernels.lif_forward(p, x, *learned, given, state)), **close)
    assert running.sequence.folds == 3 + 2 * 2
    stabilized = LIFParams(rule="ottt", v_reset=0.25, surrogate=EXACT)

    def charge(kernels):
        (u, moments), settled = kernels.charge(stabilized, x, *learned, written(running), keep)
        return u, *moments, settled.used.statistics, *settled.total

    assert_alike("osr", charge, **close)


@pytest.mark.parametrize("dtype", CLOSE, ids=dtype_id)
@pytest.mark.parametrize("shape", [(5, 3, 700), (300, 70)], ids=str)
def test_osr_backward(shape, dtype):
    x, g = current(*shape, dtype=dtype), torch.randn(shape).to(dtype)
    used, means = Used(vectors(6, shape[1]), torch.tensor(7.0).double()), vectors(2, shape[1])
    p, keep, u = LIFParams(rule="sltt", v_reset=None, surrogate=EXACT), keep_of(x), keep_of(x)
    assert_alike("osr", lambda kernels: tuple(kernels.reduce(x, g, used, dtype)), **CLOSE[dtype])
    assert_alike("osr", lambda kernels: kernels.gradient(x, g, used, means), **CLOSE[dtype])

    def reduced(kernels, *threshold):
        g_y, sums = kernels.lif_reduce(p, x, g, u, keep, used, torch.float32, *threshold)
        return g_y, *sums

    assert_alike("osr", reduced, rtol=1e-5, atol=1e-4)
    threshold = torch.tensor(0.7, dtype=torch.float64)
    assert_alike("osr", lambda kernels: reduced(kernels, threshold), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", CLOSE, ids=dtype_id)
def test_ots(dtype):
    x, threshold = current(SIZES[1], dtype=dtype), torch.tensor(0.7, dtype=torch.float64)
    p, u, keep = LIFParams(rule="ottt", surrogate=EXACT), current(*x.shape, dtype=torch.float32), keep_of(x)
    assert_alike("ots", lambda kernels: kernels.charge(p, x, None), rtol=1e-11, atol=1e-11)
    assert_alike("ots", lambda kernels: kernels.fire(p, u, threshold, keep, keep, dtype))
    assert_alike("ots", lambda kernels: kernels.backward(p, u, threshold, keep, x, dtype))


@pytest.mark.parametrize("dtype", CLOSE, ids=dtype_id)
@pytest.mark.parametrize("rule", ["sltt", "bptt"])
def test_mpdr(rule, dtype):
    p, moments = LIFParams(rule=rule, v_reset=0.25, surrogate=EXACT), torch.empty(3, 2, dtype=torch.float64)
    x, g_s, keep, u, _ = operands(dtype, SIZES[1])
    saved, mpdr = Saved(dtype, True, u=u, keep=keep), MPDRGradient(vectors(3, 3), rule == "sltt")

    def forward(kernels):
        out = kernels.forward(p, x, LIFState(keep=keep), True, u_seq=True, moments_out=moments)
        return out.spikes, out.u, moments.clone()

    assert_alike("mpdr", forward, rtol=1e-11, atol=1e-11)
    assert_alike("mpdr", lambda kernels: kernels.backward(p, saved, g_s, mpdr=mpdr), **CLOSE[dtype])


def test_changed_instruction_is_noticed(launched):
    x = current(3, 1031)
    out = sequence(x, v_reset=None)
    (launch,) = launched
    replace(launch, text=re.sub(r"\bsub((?:\.rn)?\.f32)", r"add\1", launch.text)).run()
    with pytest.raises(AssertionError, match="not equal"):
        assert_same(out, on_reference(sequence, x, v_reset=None))
