"""The registered operators: torch.library's own checks, and equality with what eager calls compute."""

import itertools
import subprocess
import sys

import pytest
import torch
from torch.library import opcheck

import fastsnn
from fastsnn import backends, surrogate, types
from fastsnn.ops import lif
from fastsnn.ops import standardize as ws
from fastsnn.ops.common.library import define
from fastsnn.ops.lif import graph as registered
from fastsnn.ops.standardize.graph import standardize_backward, standardize_forward
from fastsnn.types import EMPTY, RULES, LIFParams, LIFState, params_of, state_dtype

from ..cases import DTYPES, LAYOUTS, assert_same, current, dtype_id, keep_of, resets_of

SHAPE = (2, 3, 4, 5)
STATES = ["none", "v", "full"]
BOTH = pytest.mark.parametrize("backend", ["cpu", "reference"])


def params(rule, **kwargs):
    return LIFParams(**{"v_reset": None, "rule": rule, "tau": 1.7, **kwargs})


def state_of(x, rule, kind):
    """No state, the potential alone, or all that the rule may hold, laid out as x."""
    if kind == "none":
        return EMPTY

    def filled():
        return torch.rand_like(x, dtype=state_dtype(x.dtype), requires_grad=False)

    if kind == "v":
        return LIFState(filled(), True)
    p = params(rule)
    return types.state_of(p.places, filled(), not p.online, [filled() for _ in p.places], keep_of(x))


def forward_arguments(x, state, p, sequence, v_seq=False, u_seq=False, mpdr=False):
    potential, is_v, trace, ratio, keep, *more = state
    return x, potential, trace, ratio, keep, is_v, sequence, v_seq, u_seq, mpdr, *p.arguments, *more


def inputs(sequence, dtype=torch.float32, T=4):
    return current(*((T, *SHAPE) if sequence else SHAPE), dtype=dtype).requires_grad_()


@pytest.mark.parametrize(("backend", "kind"), [*(("cpu", kind) for kind in STATES), ("reference", "full")])
@pytest.mark.parametrize("sequence", [False, True], ids=["step", "sequence"])
@pytest.mark.parametrize("rule", RULES)
def test_lif_forward_passes_opcheck(rule, sequence, kind, backend):
    x = inputs(sequence)
    state = state_of(x[0] if sequence else x, rule, kind)
    if not RULES[rule].online and kind != "none":
        state.potential.requires_grad_()
    with fastsnn.use_backend(backend):
        opcheck(registered.lif_forward.op, forward_arguments(x, state, params(rule), sequence, v_seq=sequence))


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("u_seq", [False, True], ids=["x", "u"])
def test_a_bptt_sequence_passes_opcheck_from_x_and_from_u(dtype, u_seq, backend):
    x = inputs(True, dtype)
    with fastsnn.use_backend(backend):
        opcheck(registered.lif_forward.op, forward_arguments(x, EMPTY, params("bptt"), True, u_seq=u_seq))


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "with_gaps", "expanded"])
@pytest.mark.parametrize("sequence", [False, True], ids=["step", "sequence"])
@BOTH
def test_layouts_pass_opcheck(layout, sequence, backend):
    x = LAYOUTS[layout](inputs(sequence).detach()).requires_grad_()
    state = state_of(x[0] if sequence else x, "ndot", "full")
    with fastsnn.use_backend(backend):
        opcheck(registered.lif_forward.op, forward_arguments(x, state, params("ndot"), sequence))


@pytest.mark.parametrize("T", [1, 4])
def test_a_sequence_of_one_step_passes_opcheck(T):
    opcheck(registered.lif_forward.op, forward_arguments(inputs(True, T=T), EMPTY, params("ottt"), True))


@BOTH
@pytest.mark.parametrize("given", list(itertools.product([False, True], repeat=3)), ids=str)
@pytest.mark.parametrize("rule", ["bptt", "ottt"])
def test_lif_backward_passes_opcheck(rule, given, backend):
    """Operands each given or None; g_s is given where g_v is not."""
    x = inputs(True).detach()
    has_v, has_potential, has_keep = given
    g_s = None if has_v and rule == "bptt" else torch.randn_like(x)
    g_v = torch.randn_like(x[0]) if has_v and rule == "bptt" else None
    potential = torch.rand_like(x[0]) if has_potential else None
    keep = keep_of(x[0]) if has_keep else None
    flags = (torch.float32, True, True, False, rule == "bptt", None)
    with fastsnn.use_backend(backend):
        opcheck(registered.lif_backward.op, (g_s, g_v, None, x, potential, keep, *flags, *params(rule).arguments))
        u = torch.randn_like(x[0])
        g_s = None if g_s is None else g_s[0].to(torch.bfloat16)
        flags = (torch.bfloat16, False, False, False, rule == "bptt", None)
        opcheck(registered.lif_backward.op, (g_s, g_v, u, None, None, keep, *flags, *params(rule).arguments))


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("sequence", [False, True], ids=["step", "sequence"])
@pytest.mark.parametrize("rule", ["bptt", "ndot"])
def test_mpdr_passes_opcheck(rule, sequence, dtype, backend):
    x = inputs(sequence, dtype)
    with fastsnn.use_backend(backend):
        opcheck(registered.lif_forward.op, forward_arguments(x, EMPTY, params(rule), sequence, mpdr=True))
        u = torch.randn_like(x, dtype=state_dtype(dtype)).detach()
        saved = (None, x.detach(), None, None) if sequence else (u, None, None, None)
        flags = (dtype, False, sequence, False, rule == "bptt", torch.rand(x.shape[0] if sequence else 1, 3).double())
        g_s = torch.randn_like(x).detach()
        opcheck(registered.lif_backward.op, (g_s, None, *saved, *flags, *params(rule).arguments))


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("channels_last", [False, True])
def test_standardize_passes_opcheck(channels_last, dtype, backend):
    weight = torch.randn(5, 4, 3, 3, dtype=dtype)
    weight = weight.to(memory_format=torch.channels_last) if channels_last else weight
    gain = torch.rand(5, 1, 1, 1, dtype=dtype)
    with fastsnn.use_backend(backend):
        _, mean, inverse = standardize_forward.op(weight, gain, 1e-4)
        opcheck(standardize_backward.op, (weight, gain, mean, inverse, torch.randn_like(weight), 1e-4))
        opcheck(standardize_forward.op, (weight.requires_grad_(), gain.requires_grad_(), 1e-4))


def tensors(values):
    return [value for value in values if isinstance(value, torch.Tensor)]


def run_in(graph, monkeypatch, *arguments):
    """ops.lif.run, through the autograd.Function or through the operator."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: graph)
        return lif.run(*arguments)


@BOTH
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("sequence", [False, True], ids=["step", "sequence"])
@pytest.mark.parametrize(("rule", "reset"), [(rule, reset) for rule in RULES for reset in resets_of(rule)])
def test_equals_the_eager_call(rule, reset, sequence, kind, dtype, backend, monkeypatch):
    p = params(rule, v_reset=resets_of(rule)[reset])
    x = inputs(sequence, dtype)
    state = state_of(x[0] if sequence else x, rule, kind)
    leaves = [x]
    if not p.online and kind != "none":
        leaves.append(state.potential.requires_grad_())
    results = []
    with fastsnn.use_backend(backend):
        for graph in (False, True):
            ran = run_in(graph, monkeypatch, p, x, state, sequence, sequence)
            outputs = [ran.spikes, ran.v] if not p.online else [ran.spikes]
            g = torch.autograd.grad(
                sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outputs), leaves
            )
            assert ran.state.potential.requires_grad == (not p.online)
            v = ran.v if sequence or not p.online else None
            results.append((ran.spikes, ran.trace, v, *ran.state, *g))
    assert_same(results[1], results[0])


@pytest.mark.parametrize("u_seq", [False, True], ids=["recomputes", "saves_u"])
def test_u_of_a_sequence_is_kept_where_the_kernels_need_it(u_seq, monkeypatch):
    kernels = backends.select("lif", torch.empty(0))
    monkeypatch.setattr(kernels, "SAVES_U", u_seq)
    x = inputs(True)
    ran = run_in(True, monkeypatch, params("bptt"), x, EMPTY, True)
    saved = [tensor for tensor in ran.spikes.grad_fn.saved_tensors if tensor is not None]
    assert (saved[0].data_ptr() == x.data_ptr()) == (not u_seq)
    eager = run_in(False, monkeypatch, params("bptt"), x, EMPTY, True)
    assert_same(*(torch.autograd.grad(out.spikes.sum(), x) for out in (ran, eager)))


@pytest.mark.parametrize("name", surrogate.SURROGATES)
def test_parameters_survive_the_way_through_an_operator(name):
    p = LIFParams(1.7, False, 0.3, None, surrogate.SURROGATES[name](1.3), True, "ndot")
    back = params_of(*p.arguments)
    fields = "leak gain bias threshold v_reset v_start reset_grad shape height slope rule of_rule online".split()
    assert [getattr(back, field) for field in fields] == [getattr(p, field) for field in fields]
    assert back.arguments == p.arguments


def test_a_surrogate_of_the_users_own_reaches_the_kernels():
    class Steep(surrogate.Surrogate):
        shape, height, slope = "triangle", 3.0, 2.0

    z = torch.linspace(-1, 1, 9)
    assert_same(params_of(*params("bptt", surrogate=Steep()).arguments).surrogate.derivative(z), Steep().derivative(z))


@BOTH
def test_outputs_do_not_share_memory(backend):
    x = inputs(True).detach()
    state = state_of(x[0], "ndot", "full")
    with fastsnn.use_backend(backend):
        out = registered.lif_forward.op(*forward_arguments(x, state, params("ndot"), True, v_seq=True))
    addresses = [t.data_ptr() for t in (x, *tensors(state), *out) if t.numel()]
    assert len(set(addresses)) == len(addresses)


def test_a_forced_backend_holds_inside_an_operator():
    x = inputs(False).detach()
    with fastsnn.use_backend("cuda"), pytest.raises(fastsnn.BackendError, match="forced"):
        registered.lif_forward.op(*forward_arguments(x, EMPTY, params("sltt"), False))


@pytest.mark.parametrize("rule", ["bptt", "sltt"])
def test_a_second_derivative_raises(rule, monkeypatch):
    x = inputs(False)
    spikes = run_in(True, monkeypatch, params(rule), x).spikes
    (g,) = torch.autograd.grad((spikes * x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_standardize_equals_the_eager_call(monkeypatch):
    weight, gain = torch.randn(5, 7, requires_grad=True), torch.rand(5, 1, requires_grad=True)
    results = []
    for graph in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda graph=graph: graph)
            value = ws.standardize(weight, gain)
        results.append((value, *torch.autograd.grad((value * torch.arange(7.0)).sum(), [weight, gain])))
    assert_same(results[1], results[0])


AGAIN = """
import sys, torch, fastsnn
from torch import nn

def step(lib):
    torch._dynamo.reset()
    net = nn.Sequential(nn.Linear(4, 4), lib.LIF.for_rule("ottt"))
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    x = torch.ones(2, 4)
    y = compiled(x).spikes
    y.sum().backward()
    lib.reset(net)
    assert torch.equal(y, net(x).spikes) and net[0].weight.grad is not None
    assert torch.ops.fastsnn.binarize(torch.ones(2, 2), True).sum() == 4

first = fastsnn
step(first)
for _ in range(2):
    for name in [n for n in sys.modules if n.split(".")[0] == "fastsnn"]:
        del sys.modules[name]
    import fastsnn
    assert fastsnn is not first
    step(fastsnn)
    with fastsnn.use_backend("reference"):  # the operators run what was imported last
        step(fastsnn)
step(first)
"""


def test_a_second_import_after_the_modules_were_purged():
    done = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_versions_operator_is_refused():
    with pytest.raises(ImportError, match=r"fastsnn::binarize is defined with .*start Python anew"):
        define("binarize", "(Tensor weight) -> Tensor", None)(None)
