"""OSR and OTS as registered operators."""

import pytest
import torch
from torch.library import opcheck

import fastsnn
from fastsnn import types
from fastsnn.ops import osr, ots
from fastsnn.ops.osr import graph as registered
from fastsnn.stats import Running
from fastsnn.types import EMPTY, LIFParams, state_dtype

from ..cases import DTYPES, LAYOUTS, ONLINE, assert_same, current, dtype_id, keep_of

BOTH = pytest.mark.parametrize("backend", ["cpu", "reference"])
SHAPE = (3, 4, 5, 2)
OPERATORS = torch.ops.fastsnn
STATES = ["none", "full"]


def params(rule, **kwargs):
    return LIFParams(v_reset=None, rule=rule, tau=1.7, v_threshold=0.4, **kwargs)


def state_of(x, p, kind):
    if kind == "none":
        return EMPTY

    def filled(wanted):
        return torch.rand(x.shape, dtype=state_dtype(x.dtype)) if wanted else None

    return types.state_of(p.places, filled(True), False, [filled(True) for _ in p.places], keep_of(x))


def inputs(dtype=torch.float32, layout="contiguous"):
    return LAYOUTS[layout](current(*SHAPE, dtype=dtype)).requires_grad_()


def normalization(dtype=torch.float32, max_ratio=20.0):
    """weight, bias and running statistics; with max_ratio 0 the batch's own normalise."""
    wide = state_dtype(dtype)
    weight, bias = (torch.randn(SHAPE[1], dtype=wide).requires_grad_() for _ in range(2))
    running = Running(torch.randn(SHAPE[1], dtype=wide), 1 + torch.rand(SHAPE[1], dtype=wide), 1e-4, max_ratio, True)
    return weight, bias, running


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("max_ratio", [None, 20.0, 0.0])
def test_osr_passes_opcheck(max_ratio, dtype, backend):
    weight, bias, running = normalization(dtype, max_ratio)
    with fastsnn.use_backend(backend):
        opcheck(OPERATORS.osr_normalize.default, (inputs(dtype), weight, bias, *running[:5]))


@pytest.mark.parametrize("layout", ["transposed", "channels_last", "with_gaps", "expanded"])
def test_layouts_pass_opcheck(layout):
    weight, bias, running = normalization()
    opcheck(OPERATORS.osr_normalize.default, (inputs(layout=layout), weight, bias, *running[:5]))
    p, x = params("ndot"), inputs(layout=layout)
    potential, is_v, trace, ratio, keep, *more = state_of(x, p, "full")
    state = potential, trace, ratio, keep, is_v
    opcheck(OPERATORS.osr_lif_forward.default, (x, weight, bias, *running[:5], *state, *p.arguments, *more))
    opcheck(OPERATORS.ots_charge.default, (x.detach(), potential, *params("ottt").arguments))


@BOTH
@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("rule", ONLINE)
def test_osr_lif_passes_opcheck(rule, kind, backend):
    p, x = params(rule), inputs()
    weight, bias, running = normalization()
    potential, is_v, trace, ratio, keep, *more = state_of(x, p, kind)
    with fastsnn.use_backend(backend):
        state = potential, trace, ratio, keep, is_v
        opcheck(OPERATORS.osr_lif_forward.default, (x, weight, bias, *running[:5], *state, *p.arguments, *more))


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_backwards_of_osr_pass_opcheck(dtype, backend):
    weight, bias, running = normalization(dtype)
    x, p = inputs(dtype).detach(), params("sltt")
    with fastsnn.use_backend(backend), torch.no_grad():
        y, statistics, n = OPERATORS.osr_normalize(x, weight, bias, *running[:5])
        opcheck(OPERATORS.osr_normalize_backward.default, (torch.randn_like(y), x, statistics, n, weight.dtype))
        u, keep = torch.randn_like(x, dtype=state_dtype(dtype)), keep_of(x)
        rest = x, u, keep, statistics, n, weight.dtype, *p.arguments
        opcheck(OPERATORS.osr_lif_backward.default, (torch.randn_like(y), *rest))


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("rule", ots.RULES)
def test_ots_passes_opcheck(rule, kind, dtype, backend):
    p, x = params(rule), inputs(dtype)
    state = state_of(x, p, kind)
    with fastsnn.use_backend(backend):
        opcheck(OPERATORS.ots_charge.default, (x.detach(), state.potential, *p.arguments))
        u, moments = OPERATORS.ots_charge(x.detach(), state.potential, *p.arguments)
        opcheck(OPERATORS.ots_fire.default, (x, u, moments[1].clone(), state.trace, state.keep, *p.arguments))
        g_s = torch.randn_like(x).detach()
        opcheck(OPERATORS.ots_backward.default, (g_s, u, moments[1].clone(), state.keep, dtype, *p.arguments))


def in_graph(monkeypatch, graph):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: graph)


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "with_gaps"])
@pytest.mark.parametrize("max_ratio", [20.0, 0.0])
def test_osr_equals_the_eager_call(max_ratio, layout, dtype, backend, monkeypatch):
    x, (weight, bias, running) = inputs(dtype, layout), normalization(dtype, max_ratio)
    results = []
    for graph in (False, True):
        in_graph(monkeypatch, graph)
        with fastsnn.use_backend(backend):
            y, moments = osr.renormalize(x, weight, bias, running)
            g = torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)
            results.append([y, *moments, *torch.autograd.grad(y, [x, weight, bias], g)])
    assert_same(results[1], results[0])


@BOTH
@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("rule", ONLINE)
def test_osr_lif_equals_the_eager_call(rule, kind, backend, monkeypatch):
    p, x, (weight, bias, running) = params(rule), inputs(), normalization()
    state, results = state_of(x, p, kind), []
    for graph in (False, True):
        in_graph(monkeypatch, graph)
        with fastsnn.use_backend(backend):
            ran, moments = osr.renormalized_lif(x, weight, bias, running, p, state)
            g = torch.linspace(-1, 1, x.numel()).view_as(x)
            learned = torch.autograd.grad(ran.spikes, [x, weight, bias], g)
            results.append([ran.spikes, *ran.state, ran.trace, *moments, *learned])
    assert_same(results[1], results[0])


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("rule", ots.RULES)
def test_ots_equals_the_eager_call(rule, kind, dtype, backend, monkeypatch):
    p, x = params(rule), inputs(dtype)
    state, results = state_of(x, p, kind), []
    for graph in (False, True):
        in_graph(monkeypatch, graph)
        with fastsnn.use_backend(backend):
            ran = ots.run(p, x, state, lambda moments: moments.mean + moments.unbiased_std)
            g = torch.linspace(-1, 1, x.numel(), dtype=dtype).view_as(x)
            results.append([ran.spikes, *ran.state, ran.trace, *torch.autograd.grad(ran.spikes, x, g)])
    assert_same(results[1], results[0])


def test_outputs_do_not_share_memory():
    weight, bias, running = normalization(torch.float64)
    p, x = params("ndot"), inputs(torch.float64).detach()
    potential, is_v, trace, ratio, keep, *more = state_of(x, p, "full")
    state = potential, trace, ratio, keep, is_v
    out = OPERATORS.osr_lif_forward(x, weight, bias, *running[:5], *state, *p.arguments, *more)
    given = x, weight, bias, running.mean, running.variance, potential, trace, ratio, keep
    addresses = [tensor.untyped_storage().data_ptr() for tensor in (*given, *out) if tensor.numel()]
    assert len(set(addresses)) == len(addresses)


def test_values_are_checked_inside_an_operator():
    weight, bias, running = normalization()
    with pytest.raises(ValueError, match="one element a channel"):
        registered.renormalize(torch.ones(1, SHAPE[1]), weight, bias, running)
    with pytest.raises(FloatingPointError, match="NaN"):
        registered.renormalize(torch.full(SHAPE, torch.nan), weight, bias, running)
    y, _ = registered.renormalize(torch.full(SHAPE, torch.nan), weight, bias, running._replace(strict=False))
    assert y.isnan().all()


def test_a_second_derivative_raises():
    weight, bias, running = normalization()
    p, x = params("sltt"), inputs()
    state = None, None, None, None, False
    threshold = torch.tensor(0.4, dtype=torch.float64)
    for operator, arguments in (
        (OPERATORS.osr_normalize, (weight, bias, *running[:5])),
        (OPERATORS.osr_lif_forward, (weight, bias, *running[:5], *state, *p.arguments)),
        (OPERATORS.ots_fire, (x.detach(), threshold, None, None, *p.arguments)),
    ):
        (g,) = torch.autograd.grad((operator(x, *arguments)[0] * x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            g.sum().backward()
