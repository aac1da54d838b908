"""OSR, alone and with the neuron behind it: every backend against the reference."""

import pytest
import torch

import fastsnn
from fastsnn import backends, surrogate
from fastsnn.stats import Moments, Running, Sequence, Used

from ..cases import (
    DTYPES,
    LAYOUTS,
    ONLINE,
    RESETS,
    TYPES,
    assert_same,
    current,
    dtype_id,
    keep_of,
    on_reference,
    pairs,
    resets_of,
)

pytestmark = pytest.mark.usefixtures("poisoned")

SHAPES = [
    (5, 3),
    (6, 1, 4),
    (2, 7, 3, 5),
    (3, 18, 17, 13),
    (700, 33),
    (700, 24),
    (40, 264),
    (5, 2, 3000),
    (3, 2100),
    (2, 3, 2, 2, 2),
]
# sums are in double everywhere: one rounding to x's dtype is all the error there is
TOLERANCE = {
    torch.float32: {"rtol": 2e-7, "atol": 1e-7},
    torch.float64: {"rtol": 1e-11, "atol": 1e-12},
    torch.bfloat16: {"rtol": 2**-8, "atol": 1e-6},
    torch.float16: {"rtol": 2**-11, "atol": 1e-6},
}
EXACT = surrogate.Triangle(2.0)


def kernels(variant, family="osr"):
    """The forced backend's kernels; skips where it has none."""
    name = variant.partition(":")[0]
    refusal = backends.refusal(family, name, torch.empty(0).device)
    if refusal:
        pytest.skip(refusal)
    return backends.select(family, torch.empty(0))


def vectors(channels, dtype=torch.float32):
    """Weight and bias."""
    return torch.randn(2, channels).to(dtype).unbind()


def running_of(channels, dtype=torch.float32, sequence=None, **kwargs):
    """Running statistics of order one, in memory of their own."""
    mean, variance = torch.randn(channels).to(dtype), (torch.rand(channels) + 0.5).to(dtype)
    return Running(mean, variance, 1e-4, **kwargs, sequence=sequence)


def used_of(channels):
    """What a step was normalised with, and the two means of a gradient."""
    statistics = torch.rand(6, channels, dtype=torch.float64) + 0.5
    return Used(statistics, torch.tensor(7.0, dtype=torch.float64)), torch.randn(2, channels, dtype=torch.float64)


def written(running):
    """The same in other memory: a kernel writes to it."""
    copy = lambda tensor: tensor.clone() if isinstance(tensor, torch.Tensor) else tensor  # noqa: E731
    sequence = running.sequence and Sequence(*map(copy, running.sequence))
    return Running(*map(copy, running[:5]), sequence)


def assert_settled(found, expected):
    """Statistics and moments; the flag and the counts to the bit."""
    assert_same(found.used.statistics, expected.used.statistics, rtol=1e-11, atol=1e-12)
    assert_same(found.used.n, expected.used.n)
    assert (found.total is None) == (expected.total is None)
    assert_same(tuple(found.total or ()), tuple(expected.total or ()), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(variant, shape, dtype):
    x, learned, running = current(*shape, dtype=dtype), vectors(shape[1]), running_of(shape[1])
    y, settled = kernels(variant).normalize(x, *learned, running)
    expected, own = on_reference(lambda: kernels("reference").normalize(x, *learned, running))
    assert_same(y, expected)
    assert_settled(settled, own)
    assert_same(kernels(variant).apply(x, *learned, running), expected)


def sequence_of(channels, ends, later, pooled, share):
    """What becomes of a sequence's second step, or of its first."""
    before = Moments(torch.tensor(40.0).double(), *torch.rand(2, channels, dtype=torch.float64)) if later else None
    return Sequence(2 if later else 1, before, pooled, ends, share, torch.tensor(3), None)


SHARES = {"a-tenth": lambda: 0.1, "a-quarter-as-tensor": lambda: torch.tensor(0.25, dtype=torch.float64)}


@pytest.mark.parametrize("max_ratio", [None, 20.0, 1.0], ids=["running", "within", "exceeded"])
@pytest.mark.parametrize("strict", [False, True], ids=["loose", "strict"])
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("pooled", [False, True], ids=["merged", "pooled"])
@pytest.mark.parametrize("later", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("ends", [False, True], ids=["goes-on", "ends"])
def test_a_step_of_a_sequence(variant, ends, later, pooled, share, strict, max_ratio):
    x, learned = current(3, 18, 17, 13), vectors(18)
    sequence = sequence_of(18, ends, later, pooled, SHARES[share]())
    running = running_of(18, sequence=sequence, strict=strict, max_ratio=max_ratio)
    given, truth = written(running), written(running)
    y, settled = kernels(variant).normalize(x, *learned, given)
    expected, own = on_reference(lambda: kernels("reference").normalize(x, *learned, truth))
    assert_same(y, expected, rtol=1e-6, atol=1e-6)  # the batch's own statistics differ by roundings
    assert_settled(settled, own)
    assert_same((given.mean, given.variance), (truth.mean, truth.variance), rtol=2e-7, atol=1e-7)
    assert_same(given.sequence.folds, truth.sequence.folds)
    assert torch.equal(given.mean, running.mean) != ends


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_types_of_parameters_and_statistics(variant, dtype):
    """x, weight and bias, running statistics: each has its own."""
    others = [other for other in DTYPES if other != dtype]
    for learned_dtype, running_dtype in [*zip(others, others[1:] + others[:1], strict=True), (dtype, dtype)]:
        x, learned = current(6, 5, 7, dtype=dtype), vectors(5, learned_dtype)
        running = running_of(5, running_dtype, sequence_of(5, True, True, False, 0.1))
        given, truth = written(running), written(running)
        y, _ = kernels(variant).normalize(x, *learned, given)
        expected, settled = on_reference(lambda: kernels("reference").normalize(x, *learned, truth))  # noqa: B023
        assert_same(y, expected)
        close = {"rtol": 2**-8, "atol": 1e-6} if running_dtype in (torch.bfloat16, torch.float16) else {"rtol": 2e-7}
        assert_same((given.mean, given.variance), (truth.mean, truth.variance), **close)
        g = torch.randn(6, 5, 7).to(dtype)
        reduced = kernels(variant).reduce(x, g, settled.used, learned_dtype)
        truly = on_reference(lambda: kernels("reference").reduce(x, g, settled.used, learned_dtype))  # noqa: B023
        assert_same(reduced[0], truly[0], rtol=1e-10, atol=1e-10)
        assert_same(tuple(reduced[1:]), truly[1:], **TOLERANCE[learned_dtype])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("ends", [False, True], ids=["goes-on", "ends"])
def test_a_step_that_strict_refuses_is_left_out(variant, ends, bad):
    """The CPU leaves all as it was; a device folds what the steps before have left, and notes the step's number."""
    x, learned = current(3, 18, 17, 13), vectors(18)
    x[1, 5, 3, 2] = bad
    running = running_of(18, sequence=sequence_of(18, ends, True, False, 0.1), strict=True, max_ratio=20.0)
    given = written(running)
    _, settled = kernels(variant).normalize(x, *learned, given)
    assert settled.used.n == 0
    if x.device.type == "cpu":
        assert_same((given.mean, given.variance), (running.mean, running.variance))
        assert_same(given.sequence.folds, running.sequence.folds)
        return
    assert settled.refused == 2
    assert_same(tuple(settled.total), tuple(running.sequence.before), rtol=1e-12)
    assert given.sequence.folds == 3 + ends


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(variant, shape, dtype):
    x, g = current(*shape, dtype=dtype), torch.randn(shape).to(dtype)
    used, means = used_of(shape[1])
    found, truth = kernels(variant), on_reference(lambda: kernels("reference"))
    reduced, expected = (which.reduce(x, g, used, torch.float64) for which in (found, truth))
    assert_same(tuple(reduced), tuple(expected), rtol=1e-10, atol=1e-9)
    g_x, expected = (which.gradient(x, g, used, means) for which in (found, truth))
    assert_same(g_x, expected, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=dtype_id)
@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_a_large_mean_does_not_cancel(variant, spread, dtype):
    x = (1e4 + spread * torch.randn(9, 4, 40)).to(dtype)
    moments = kernels(variant).normalize(x, *vectors(4), running_of(4))[1].used.moments
    exact = x.double().transpose(0, 1).flatten(1).var(1, correction=0)
    assert_same(moments.variance, exact, rtol=1e-9)


@pytest.mark.parametrize("value", [0.1, -1e4, 0.0])
def test_a_constant_has_no_variance(variant, value):
    x = torch.full((70, 3, 1000), value)
    moments = kernels(variant).normalize(x, *vectors(3), running_of(3))[1].used.moments
    assert_same(moments.m2, torch.zeros(3, dtype=torch.float64))


def layer(*shape, dtype=torch.float32, **kwargs):
    """An OSR whose parameters and statistics are not the initial ones."""
    osr = fastsnn.nn.osr.OSR(shape[1], 3, **kwargs).to(dtype)
    with torch.no_grad():
        for tensor in (osr.weight, osr.bias, osr.running_mean):
            tensor.normal_()
        osr.running_var.uniform_(0.5, 2.0)
    return osr


def train(module, x, g):
    """Output of every step, gradients of x and of the parameters, and the running statistics."""
    x = x.detach().requires_grad_()
    outputs = [fastsnn.nn.plain(module(x_t)) for x_t in x]
    grads = torch.autograd.grad(outputs, (x, *module.parameters()), list(g))
    return torch.stack(outputs).detach(), *grads, *(b.clone() for b in module.buffers())


def both(make, x, g, variant):
    """The same training with the forced backend's kernels and with the reference's."""
    kernels(variant)
    torch.manual_seed(1)
    found = train(make(), x, g)
    torch.manual_seed(1)
    return found, on_reference(lambda: train(make(), x, g))


@pytest.mark.parametrize("max_ratio", [None, 0.0], ids=["running", "batch"])
@pytest.mark.parametrize("shape", [(9, 5), (4, 6, 5, 3)], ids=str)
def test_the_layer(variant, shape, max_ratio):
    x, g = current(4, *shape), torch.randn(4, *shape)
    found, expected = both(lambda: layer(*shape, max_ratio=max_ratio), x, g, variant)
    assert_same(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("max_ratio", [None, 0.0], ids=["running", "batch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=dtype_id)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("rule", ONLINE)
def test_fused_with_a_neuron_equals_the_two_layers_bitwise(variant, rule, reset, dtype, max_ratio):
    if reset not in resets_of(rule):
        return
    kernels(variant)
    shape, neuron = (4, 6, 5, 3), {"rule": rule, "v_reset": RESETS[reset], "tau": 1.7, "surrogate_function": EXACT}
    x, g = current(4, *shape, dtype=dtype), torch.randn(4, *shape, dtype=dtype)
    fused = fastsnn.OSRLIF(6, 3, max_ratio=max_ratio, dropout=0.3, **neuron).to(dtype)
    composed = torch.nn.Sequential(fastsnn.nn.osr.OSR(6, 3, max_ratio=max_ratio), fastsnn.LIF(dropout=0.3, **neuron))
    composed[0].to(dtype)
    torch.manual_seed(1)
    found = train(fused, x, g)
    torch.manual_seed(1)
    expected = train(composed, x, g)
    assert fused.neuron._backend == backends.select("osr", x).NAME
    assert_same(found[0], expected[0])
    tight = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-12}
    assert_same(found[1:], expected[1:], **tight)
    one, other = fused.neuron.state, composed[1].state
    assert_same(one._replace(potential=None, keep=None), other._replace(potential=None, keep=None))
    assert_same((one.potential, one.keep), (other.potential, other.keep))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=dtype_id)
@pytest.mark.parametrize("shape", [(9, 5), (4, 6, 5, 3)], ids=str)
def test_fused_half_types(variant, shape, dtype):
    found, truth = kernels(variant), on_reference(lambda: kernels("reference"))
    p = fastsnn.types.LIFParams(rule="ottt", v_reset=None, surrogate=EXACT)
    x, state = current(*shape, dtype=dtype), fastsnn.types.EMPTY
    given = p, x, *vectors(shape[1]), running_of(shape[1]), state
    (out, own), (expected, truly) = (which.lif_forward(*given) for which in (found, truth))
    assert_same(out._replace(v=None), expected._replace(v=None))
    assert_settled(own, truly)
    used, _ = used_of(shape[1])
    g_s, keep = torch.randn(shape).to(dtype), keep_of(x)
    given = (p, x, g_s, out.u, keep, used, torch.float32)
    (g_y, reduced), (expected, truly) = (which.lif_reduce(*given) for which in (found, truth))
    assert_same((g_y, *reduced), (expected, *truly), rtol=1e-6, atol=1e-6)


@pairs(
    shape={str(shape): shape for shape in SHAPES},
    typed={
        f"{name}-{reset}": (dtype, RESETS[reset]) for name, dtype in TYPES.items() for reset in ("soft", "hard0.25")
    },
    given={"first": False, "later": True},
    max_ratio={"running": None, "within": 20.0, "exceeded": 1.0},
)
def test_charge_and_gradient_under_ots(variant, shape, typed, given, max_ratio):
    dtype, v_reset = typed
    found, truth = kernels(variant), on_reference(lambda: kernels("reference"))
    p = fastsnn.types.LIFParams(tau=1.7, rule="ottt", v_reset=v_reset, surrogate=EXACT)
    x, learned, v = current(*shape, dtype=dtype), vectors(shape[1]), None
    v = keep_of(x) - 0.3 if given else None
    running = running_of(shape[1], sequence=sequence_of(shape[1], True, given, False, 0.1), max_ratio=max_ratio)
    (charged, own), (expected, truly) = (which.charge(p, x, *learned, written(running), v) for which in (found, truth))
    close = {} if max_ratio is None else {"rtol": 1e-6, "atol": 1e-6}  # the batch's own statistics differ by roundings
    assert_same(charged[0], expected[0], **close)
    mean, m2 = charged[0].double().mean(), charged[0].double().var(correction=0) * x.numel()
    assert_same(tuple(charged[1]), (torch.tensor(x.numel()).double(), mean, m2), rtol=1e-10, atol=1e-11)
    assert_settled(own, truly)
    used, threshold = used_of(shape[1])[0], torch.tensor(0.7).double()
    keep, g_s = keep_of(x) if given else None, torch.randn(shape).to(dtype)
    gradients = (p, x, g_s, expected[0], keep, used, torch.float32, threshold)
    (g_y, reduced), (expected, truly) = (which.lif_reduce(*gradients) for which in (found, truth))
    assert_same(g_y, expected)
    assert_same(tuple(reduced), truly, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_a_large_mean_of_u_does_not_cancel(variant, spread):
    x, one = (1e4 + spread * torch.randn(9, 4, 40)).double(), torch.ones(4)
    running = Running(torch.zeros(4), one, 1e-4)
    p = fastsnn.types.LIFParams(rule="sltt", decay_input=False)
    u, moments = kernels(variant).charge(p, x, one, one, running, None)[0]
    assert_same(moments.unbiased_std, u.std(), rtol=1e-9)


@pytest.mark.parametrize("value", [0.1, -1e4, 0.0])
def test_a_constant_u_has_no_variance(variant, value):
    x, one = torch.full((70, 3, 1000), value), torch.ones(3)
    p = fastsnn.types.LIFParams(rule="sltt")
    moments = kernels(variant).charge(p, x, one, one, Running(torch.zeros(3), one, 1e-4), None)[0][1]
    assert moments.m2 == 0


@pytest.mark.parametrize("max_ratio", [None, 20.0, 0.0], ids=["running", "default", "batch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=dtype_id)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("rule", ["sltt", "ottt"])
def test_fused_under_ots_equals_the_two_layers(variant, rule, reset, dtype, max_ratio):
    """Its sums of u are taken in another order: thresholds are equal to the last bits of a float64."""
    kernels(variant)
    shape, neuron = (4, 6, 5, 3), {"rule": rule, "v_reset": RESETS[reset], "tau": 1.7, "surrogate_function": EXACT}
    neuron |= {"threshold": "ots", "fixed_threshold": True, "dropout": 0.3}
    x, g = current(4, *shape, dtype=dtype), torch.randn(4, *shape, dtype=dtype)
    fused = fastsnn.OSRLIF(6, 3, max_ratio=max_ratio, **neuron).to(dtype)
    composed = torch.nn.Sequential(fastsnn.nn.osr.OSR(6, 3, max_ratio=max_ratio), fastsnn.LIF(**neuron)).to(dtype)
    torch.manual_seed(1)
    found = train(fused, x, g)
    torch.manual_seed(1)
    expected = train(composed, x, g)
    assert fused.neuron._backend == backends.select("osr", x).NAME
    assert_same(found[0], expected[0])
    tight = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-12}
    assert_same(found[1:], expected[1:], **tight, equal_nan=True)
    one, other = fused.neuron.state, composed[1].state
    assert_same((one.trace, one.keep), (other.trace, other.keep))
    assert_same(one.potential, other.potential, **tight)
    one, other = fused.neuron.stabilizer.state, composed[1].stabilizer.state
    assert one.steps == other.steps == 4
    assert_same(one.quantile, other.quantile, rtol=1e-11)


def stabilized(channels):
    return fastsnn.OSRLIF(channels, 3, rule="ottt", surrogate_function=EXACT, threshold="ots")


@pytest.mark.parametrize(
    ("input_layout", "grad_layout"),
    [(x, g) for x in LAYOUTS for g in LAYOUTS if x == g or "contiguous" in (x, g)],
)
def test_layouts(backend, input_layout, grad_layout):
    kernels(backend)
    x, g = LAYOUTS[input_layout](current(3, 4, 6, 5, 3)), LAYOUTS[grad_layout](torch.randn(3, 4, 6, 5, 3))
    fused = lambda: fastsnn.OSRLIF(6, 3, rule="ottt", surrogate_function=EXACT)  # noqa: E731
    for make in (lambda: layer(4, 6), fused, lambda: stabilized(6)):
        torch.manual_seed(1)
        expected = train(make(), x.contiguous(), g.contiguous())
        torch.manual_seed(1)
        assert_same(train(make(), x, g), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 70, 6, 40), (3, 9000, 5)], ids=["inner", "last"])
def test_one_and_two_threads_give_the_same_bits_every_time(backend, shape):
    kernels(backend)
    x, g, results = current(*shape), torch.randn(shape), []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        fused = lambda: fastsnn.OSRLIF(shape[2], 3, rule="ottt")  # noqa: E731
        for make in (lambda: layer(*shape[1:]), fused, lambda: stabilized(shape[2])):
            torch.manual_seed(1)
            results.append(train(make(), x, g))
    assert_same(results[3:6], results[:3])
    assert_same(results[6:], results[:3])


def test_nan_and_infinity_stay_in_their_channel(variant):
    kernels(variant)
    x, g = current(1, 4, 6, 5), torch.randn(1, 4, 6, 5)
    broken = x.clone()
    broken[0, 1, 2, 3], broken[0, 1, 4, 0] = torch.nan, torch.inf
    rest = [0, 1, 3, 5]
    torch.manual_seed(1)
    clean = train(layer(4, 6), x, g)
    torch.manual_seed(1)
    found = train(layer(4, 6), broken, g)
    assert_same(found[0][:, :, rest], clean[0][:, :, rest])
    assert_same(found[1][:, :, rest], clean[1][:, :, rest])
    assert not found[1][:, :, [2, 4]].isfinite().any()
