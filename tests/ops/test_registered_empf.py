"""EM-PF neurons as registered operators."""

import pytest
import torch
from torch.library import opcheck

import fastsnn
from fastsnn.ops import empf
from fastsnn.ops.empf import graph as registered
from fastsnn.types import state_dtype

from ..cases import DTYPES, LAYOUTS, assert_same, current, dtype_id

BOTH = pytest.mark.parametrize("backend", ["cpu", "reference"])
T, N, C, EPS = 3, 2, 4, 1e-5
OPERATORS = torch.ops.fastsnn


def parameter(*shape):
    return (0.3 + torch.rand(shape)).requires_grad_()


def fire_arguments(version, channels, sequence, dtype=torch.float32, layout="contiguous", v_seq=True):
    x = LAYOUTS[layout](current(T, N, C, 5, dtype=dtype))
    x = (x if sequence else x[1]).requires_grad_()
    steps = (T if sequence else 1,)
    shape = steps if channels == 1 else (*steps, channels)
    leak, v = None, None
    if version == "I":
        leak, v = parameter(*shape), torch.rand(N, C, 5, dtype=state_dtype(dtype))
    return x, v, leak, parameter(*shape), channels, sequence, v_seq


@BOTH
@pytest.mark.parametrize("sequence", [False, True], ids=["step", "sequence"])
@pytest.mark.parametrize("channels", [1, C])
@pytest.mark.parametrize("version", ["I", "III"])
def test_fire_passes_opcheck(version, channels, sequence, backend):
    with fastsnn.use_backend(backend):
        opcheck(OPERATORS.empf_fire.default, fire_arguments(version, channels, sequence))


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_dtypes_pass_opcheck(dtype, backend):
    with fastsnn.use_backend(backend):
        opcheck(OPERATORS.empf_fire.default, fire_arguments("I", C, True, dtype))
        opcheck(OPERATORS.empf_norm_fire.default, norm_arguments(True, dtype))


@pytest.mark.parametrize("layout", ["transposed", "channels_last", "time_inside", "with_gaps", "expanded"])
@pytest.mark.parametrize("sequence", [False, True], ids=["step", "sequence"])
@pytest.mark.parametrize("channels", [1, C])
def test_layouts_pass_opcheck(channels, sequence, layout):
    opcheck(OPERATORS.empf_fire.default, fire_arguments("I", channels, sequence, layout=layout))


def test_without_v_of_every_step_there_is_no_gradient():
    x, *rest = fire_arguments("I", 1, True, v_seq=False)
    with torch.no_grad():
        opcheck(OPERATORS.empf_fire.default, (x.detach(), *rest))
    with pytest.raises(RuntimeError, match="v_seq=True"):
        OPERATORS.empf_fire(x, *rest)


@BOTH
@pytest.mark.parametrize("sequence", [False, True], ids=["step", "sequence"])
@pytest.mark.parametrize("channels", [1, C])
@pytest.mark.parametrize("version", ["I", "III"])
def test_fire_backward_passes_opcheck(version, channels, sequence, backend):
    after, v, leak, threshold, *shape = fire_arguments(version, channels, sequence)
    tensors = [tensor if tensor is None else tensor.detach() for tensor in (after, v, leak, threshold)]
    with fastsnn.use_backend(backend):
        opcheck(OPERATORS.empf_fire_backward.default, (torch.randn_like(after), *tensors, *shape[:2]))


def norm_arguments(batch, dtype=torch.float32, layout="contiguous", given=True, channels=(C,)):
    x = LAYOUTS[layout](current(N, C, 5, 3, dtype=dtype)).requires_grad_()
    v = torch.rand(x.shape, dtype=state_dtype(dtype)) if given else None
    running = (None, None) if batch else (torch.randn(C), torch.rand(C))
    return x, v, *(parameter(*channels) for _ in range(4)), parameter(C), parameter(C), *running, EPS


@BOTH
@pytest.mark.parametrize("channels", [(), (C,)], ids=["shared", "per_channel"])
@pytest.mark.parametrize("given", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("batch", [False, True], ids=["running", "batch"])
def test_norm_fire_passes_opcheck(batch, given, channels, backend):
    with fastsnn.use_backend(backend):
        opcheck(OPERATORS.empf_norm_fire.default, norm_arguments(batch, given=given, channels=channels))


@pytest.mark.parametrize("layout", ["transposed", "channels_last", "with_gaps", "expanded"])
def test_layouts_of_norm_fire_pass_opcheck(layout):
    opcheck(OPERATORS.empf_norm_fire.default, norm_arguments(True, layout=layout))


@BOTH
@pytest.mark.parametrize("batch", [False, True], ids=["running", "batch"])
def test_norm_fire_backward_passes_opcheck(batch, backend):
    x, v, *given = norm_arguments(batch)
    with fastsnn.use_backend(backend), torch.no_grad():
        spikes, *done = OPERATORS.empf_norm_fire(x, v, *given)
        parameters = [p.detach() for p in given[:6]]
        arguments = torch.randn_like(spikes), v, *done, *parameters, batch, EPS
        opcheck(OPERATORS.empf_norm_fire_backward.default, arguments)


def in_graph(monkeypatch, graph):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: graph)


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "with_gaps"])
@pytest.mark.parametrize("sequence", [False, True], ids=["step", "sequence"])
@pytest.mark.parametrize("channels", [1, C])
@pytest.mark.parametrize("version", ["I", "III"])
def test_equals_the_eager_call(version, channels, sequence, layout, dtype, backend, monkeypatch):
    x, v, leak, threshold, *_ = fire_arguments(version, channels, sequence, dtype, layout)
    given = [None if p is None else p if sequence else p[0] for p in (leak, threshold)]
    leaves, results = [p for p in (x, leak, threshold) if p is not None], []
    run = empf.empf_sequence if sequence else empf.empf_step
    for graph in (False, True):
        in_graph(monkeypatch, graph)
        with fastsnn.use_backend(backend):
            out = run(x, v, leak=given[0], threshold=given[1])
            g = torch.linspace(-1, 1, out.spikes.numel(), dtype=dtype).view_as(out.spikes)
            results.append([*out, out.spikes.stride(), *torch.autograd.grad(out.spikes, leaves, g)])
            with torch.no_grad():
                results[-1] += run(x, v, leak=given[0], threshold=given[1])
    assert_same(results[1], results[0])


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("given", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("batch", [False, True], ids=["running", "batch"])
def test_norm_equals_the_eager_call(batch, given, dtype, backend, monkeypatch):
    x, v, *parameters, mean, var, _ = norm_arguments(batch, dtype, given=given)
    names = ("leak", "threshold", "alpha", "beta", "weight", "bias")
    running, results = None if batch else (mean, var), []
    for graph in (False, True):
        in_graph(monkeypatch, graph)
        with fastsnn.use_backend(backend):
            out = empf.empf_norm_step(x, v, **dict(zip(names, parameters, strict=True)), running=running)
            g = torch.linspace(-1, 1, out.spikes.numel(), dtype=dtype).view_as(out.spikes)
            results.append([*out, *torch.autograd.grad(out.spikes, [x, *parameters], g)])
    assert_same(results[1], results[0])


def test_a_second_derivative_raises():
    for operator, arguments in (
        (OPERATORS.empf_fire, fire_arguments("I", 1, False)),
        (OPERATORS.empf_norm_fire, norm_arguments(True)),
    ):
        x = arguments[0]
        (g,) = torch.autograd.grad((operator(*arguments)[0] * x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            g.sum().backward()


def test_what_no_loss_depends_on_has_no_gradient():
    for fn, arguments in (
        (registered.fire, fire_arguments("I", 1, True)),
        (OPERATORS.empf_norm_fire, norm_arguments(True)),
    ):
        x = arguments[0]
        spikes, v, *_ = fn(*arguments)
        assert spikes.requires_grad
        assert not v.requires_grad
        assert torch.autograd.grad(spikes.sum() * 0 + x.sum(), x)[0].eq(1).all()
