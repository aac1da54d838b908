"""Networks inside one graph of torch.compile (fullgraph=True everywhere) and torch.export, against eager."""

import io
import operator
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastsnn
from fastsnn import TracedSpikes, surrogate
from fastsnn.nn import plain
from fastsnn.types import RULES, LIFState, replaced

from ..cases import ONLINE, TORCH, assert_same, compiled, current, graphs, in_a_graph
from .training import held, one_call, train_by_step

pytestmark = [
    pytest.mark.usefixtures("no_graphs"),
    pytest.mark.filterwarnings("ignore:.*assigned during export", "ignore:.*side effects happened"),
]


def convolutional(rule, **kwargs):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        fastsnn.LIF.for_rule(rule, v_threshold=0.3, **kwargs),
        fastsnn.Scale(),
        nn.AvgPool2d(2),
        fastsnn.WSConv2d(4, 6, 3),
        fastsnn.LIF.for_rule(rule, v_threshold=0.3, **kwargs),
        nn.Flatten(),
        nn.Linear(24, 5),
    )


def sequential(rule, **kwargs):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(8, 6),
        fastsnn.LIF.for_rule(rule, v_threshold=0.3, step_mode="m", **kwargs),
        fastsnn.WSLinear(6, 6),
        fastsnn.LIF.for_rule(rule, v_threshold=0.3, step_mode="m", **kwargs),
        nn.Linear(6, 3),
    )


def images(T=4, B=3):
    return current(T, B, 2, 8, 8)


def backward_at_end(net, step, x):
    """Every step, then one backward."""
    net.zero_grad()
    fastsnn.reset(net)
    outputs, loss = [], 0.0
    for x_t in x:
        outputs.append(step(x_t))
        loss = loss + outputs[-1].square().sum() + fastsnn.online.regularisation(net)
    loss.backward()
    return [*(out.detach() for out in outputs), *held(net)]


@pytest.mark.parametrize(("rule", "backend"), [("ottt", "eager"), *((rule, "aot_eager") for rule in ONLINE)])
def test_an_update_at_every_step_equals_eager_in_two_graphs(rule, backend):
    x, results = images(5), []
    for prepare in (lambda net: net, lambda net: compiled(net, backend)):
        net = convolutional(rule, dropout=0.2)
        step = prepare(net)
        torch.manual_seed(2)
        results.append(train_by_step(net, step, x) + train_by_step(net, step, x))
    assert_same(results[1], results[0])
    assert graphs() == 2  # the first step, and all others


@pytest.mark.parametrize("rule", ["bptt", "ndot"])
def test_late_backward_and_stored_potentials_equal_eager(rule):
    x, net, other = images(), convolutional(rule, store_v_seq=True), convolutional(rule, store_v_seq=True)
    assert_same(backward_at_end(other, compiled(other), x), backward_at_end(net, net, x))


@pytest.mark.parametrize(
    ("rule", "kwargs"),
    [*((rule, {}) for rule in RULES), ("bptt", {"store_v_seq": True}), ("ndot", {"store_v_seq": True, "dropout": 0.3})],
)
def test_sequences_equal_eager(rule, kwargs):
    x, results = current(5, 3, 8), []
    for prepare in (lambda net: net, compiled):
        net = sequential(rule, **kwargs)
        torch.manual_seed(2)
        results.append(one_call(net, prepare(net), x))
    assert_same(results[1], results[0])


@pytest.mark.parametrize("rule", ["bptt", "ndot"])
def test_evaluation_equals_eager(rule):
    x, net, other = images(), convolutional(rule).eval(), convolutional(rule).eval()
    step = compiled(other)
    with torch.no_grad():
        for x_t in x:
            assert_same(step(x_t), net(x_t))
    assert_same([*other[1].state], [*net[1].state])


@pytest.mark.parametrize("rule", ["bptt", "ottt"])
def test_no_recompilation_as_time_and_batch_change(rule):
    net, other = sequential(rule), sequential(rule)
    step = compiled(other)
    one_call(other, step, current(4, 3, 8))
    one_call(other, step, current(6, 5, 8))  # torch marks what changed as dynamic
    with torch.compiler.set_stance("fail_on_recompile"):
        for T, B in ((9, 2), (2, 7), (16, 16)):
            x = current(T, B, 8)
            assert_same(one_call(other, step, x), one_call(net, net, x))
    assert graphs() == 2


def test_a_sequence_marked_dynamic_is_compiled_once():
    net, other = sequential("ottt"), sequential("ottt")
    step = compiled(other, dynamic=True)
    for T, B in ((4, 3), (9, 2), (2, 7)):
        x = current(T, B, 8)
        assert_same(one_call(other, step, x), one_call(net, net, x))
    assert graphs() == 1


MPDR = fastsnn.online.MPDR(0.2, 0.7, 0.5, 0.02, propagate=True)


def moments(net):
    return [module.moments for module in net.modules() if isinstance(module, fastsnn.LIF)]


@pytest.mark.parametrize("rule", RULES)
def test_mpdr_in_steps_equals_eager(rule):
    x, results = images(), []
    for prepare in (lambda net: net, compiled):
        net = convolutional(rule, mpdr=MPDR, dropout=0.2)
        torch.manual_seed(2)
        run = train_by_step if RULES[rule].online else backward_at_end
        results.append([*run(net, prepare(net), x), *moments(net)])
    assert_same(results[1], results[0])
    assert graphs() == 2


@pytest.mark.parametrize("rule", RULES)
def test_mpdr_in_sequences_equals_eager(rule):
    net, other = sequential(rule, mpdr=MPDR), sequential(rule, mpdr=MPDR)
    step = compiled(other)
    for T, B in ((4, 3), (6, 5), (9, 2), (2, 7)):
        x = current(T, B, 8)
        assert_same(one_call(other, step, x), one_call(net, net, x))
        assert_same(moments(other), moments(net))
    assert graphs() == 2
    free = sequential(rule)
    one_call(free, free, x)
    assert not torch.allclose(free[0].weight.grad, net[0].weight.grad)


@pytest.mark.parametrize("rule", ["bptt", "ottt"])
def test_no_recompilation_of_steps_as_time_and_batch_change(rule):
    net, other = convolutional(rule), convolutional(rule)
    step = compiled(other)
    for B in (3, 5):
        backward_at_end(other, step, images(3, B))
    with torch.compiler.set_stance("fail_on_recompile"):
        for T, B in ((7, 2), (2, 9)):
            x = images(T, B)
            assert_same(backward_at_end(other, step, x), backward_at_end(net, net, x))
    assert graphs() == 4  # the first step and the others, static and dynamic


def test_a_changed_parameter_is_seen():
    x, net, other = current(4, 8), fastsnn.LIF(), fastsnn.LIF(tau=4.0)
    step = compiled(net)
    step(x[0])
    net.tau = 4.0
    net.reset()
    for x_t in x:
        assert_same(step(x_t), other(x_t))
    assert_same(net.v, other.v)


def test_inductor_equals_eager_but_for_rounding():
    x, net, other = images(), convolutional("ottt"), convolutional("ottt")
    actual = backward_at_end(other, compiled(other, "inductor"), x)
    assert_same(actual, backward_at_end(net, net, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_equals_eager(dtype):
    x, results = images(), []
    for prepare in (lambda net: net, compiled):
        net = convolutional("ottt")
        step = torch.autocast("cpu", dtype=dtype)(prepare(net))
        results.append(train_by_step(net, step, x))
    assert results[1][0].dtype == dtype
    assert_same(results[1], results[0])


def test_channels_last_stays():
    x, results = images().flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 3)), []
    for prepare in (lambda net: net, compiled):
        net = convolutional("ottt").to(memory_format=torch.channels_last)
        results.append([*train_by_step(net, prepare(net), x), net[1].state.potential.stride()])
    assert results[0][-1] == (256, 1, 32, 4)
    assert_same(results[1], results[0])


class Join(nn.Module):
    def forward(self, s):
        return torch.cat([s, s], 1)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, s):
        return s + self.linear(s)


class Apply(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, s):
        return self.fn(s)


class Einsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8, 3))

    def forward(self, s):
        return torch.einsum("ni,io->no", s, self.weight)


def neuron():
    return fastsnn.LIF.for_rule("ottt", v_threshold=0.3)


BEHIND = {
    "linear": (lambda: nn.Linear(8, 5), (3, 8)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (3, 4, 8)),
    "conv2d-same-even": (lambda: nn.Conv2d(4, 6, (2, 4), padding="same"), (3, 4, 8, 8)),
    "conv2d-unbatched": (lambda: nn.Conv2d(4, 6, 3, stride=2), (4, 8, 8)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 3, padding=1), (3, 2, 4, 4, 4)),
    "matmul": (lambda: Apply(lambda s: s @ torch.ones(8, 3)), (3, 8)),
    "avg_pool": (lambda: nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 6, 3)), (3, 4, 8, 8)),
    "adaptive": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)), (3, 4, 8, 8)),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 3)), (3, 8)),
    "pad": (lambda: nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(4, 6, 3)), (3, 4, 8, 8)),
    "unflatten": (lambda: nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Linear(4, 3)), (3, 8)),
    "cat": (lambda: nn.Sequential(Join(), nn.Linear(16, 3)), (3, 8)),
    "residual": (lambda: nn.Sequential(Residual(), nn.Linear(8, 3)), (3, 8)),
    "quotient": (lambda: nn.Sequential(Apply(lambda s: s / 3), nn.Linear(8, 3)), (3, 8)),
    "split": (lambda: nn.Sequential(Apply(lambda s: s.split(4, 1)[1]), nn.Linear(4, 3)), (3, 8)),
    "chunk": (lambda: nn.Sequential(Apply(lambda s: torch.chunk(s, 2, 1)[0]), nn.Linear(4, 3)), (3, 8)),
    "index": (lambda: nn.Sequential(Apply(lambda s: s[:, 2:6]), nn.Linear(4, 3)), (3, 8)),
    "mean": (lambda: nn.Sequential(Apply(lambda s: s.mean((2, 3))), nn.Linear(4, 3)), (3, 4, 8, 8)),
    "shape": (lambda: nn.Sequential(Apply(lambda s: s.view(s.shape[0], -1)), nn.Linear(8, 3)), (3, 2, 4)),
    "transposed": (lambda: nn.ConvTranspose1d(4, 6, 3, padding=1), (3, 4, 8)),
    "W @ s": (lambda: Apply(lambda s: torch.ones(3, 8) @ s.transpose(0, 1)), (3, 8)),
    "einsum": (lambda: Einsum(), (3, 8)),
    "detach": (lambda: nn.Sequential(Apply(lambda s: s + s.clone().detach()), nn.Linear(8, 3)), (3, 8)),
    "where": (
        lambda: nn.Sequential(Apply(lambda s: torch.where(torch.arange(8) < 3, s, 0.0)), nn.Linear(8, 3)),
        (3, 8),
    ),
    "keywords": (lambda: nn.Sequential(Apply(lambda s: torch.mul(other=s, input=2.0)), nn.Linear(8, 3)), (3, 8)),
    "device": (lambda: nn.Sequential(Apply(lambda s: s + torch.ones(8, device=s.device)), nn.Linear(8, 3)), (3, 8)),
    "attention": (
        lambda: nn.Sequential(Apply(lambda s: (s @ s.transpose(1, 2)) @ s), neuron(), nn.Linear(8, 3)),
        (3, 4, 8),
    ),
    "spikes": (lambda: nn.Sequential(Apply(lambda s: s.spikes.relu()), nn.Linear(8, 3)), (3, 8)),
}


def test_batches_of_standardised_weights_in_mode_a_equal_eager():
    x, y, results = images(3), torch.tensor([0, 1, 2]), []
    for prepare in (lambda net: net, compiled):
        net = convolutional("ottt")
        step = prepare(net)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(3):
            fastsnn.online.train_batch(step, x, y, optimizer, mode="A")
        results.append([p.detach().clone() for p in net.parameters()])
    assert_same(results[1], results[0], rtol=1e-5, atol=1e-6)
    assert graphs() == 2  # the first step, and all others


@pytest.mark.parametrize("name", BEHIND)
def test_what_follows_a_traced_neuron_equals_eager(name):
    if name == "pad" and TORCH < (2, 14):
        pytest.skip("torch 2.11 does not trace the override of F.pad, which is written in Python")
    make, shape = BEHIND[name]
    x = current(2, *shape).requires_grad_()
    net = nn.Sequential(fastsnn.LIF.for_rule("ndot", v_threshold=0.3), make())
    results = []
    for step in (net, compiled(net)):
        fastsnn.reset(net)
        torch.manual_seed(2)
        out = [step(x_t) for x_t in x]
        grads = torch.autograd.grad(sum(o.square().sum() for o in out), [x, *net.parameters()])
        results.append([*(o.detach() for o in out), *grads])
    assert_same(results[1], results[0])


def test_a_weight_gradient_in_a_graph_is_that_of_the_trace():
    linear, neuron, x = nn.Linear(8, 5), fastsnn.LIF.for_rule("ottt", v_threshold=0.3), current(2, 3, 8)
    step = compiled(nn.Sequential(neuron, linear))
    step(x[0])
    step(x[1]).sum().backward()
    assert_same(linear.weight.grad, neuron.trace.sum(0).expand(5, 8), rtol=1e-6)
    assert not torch.equal(neuron.trace, (neuron.trace > 0).float())


@pytest.mark.parametrize("fn", [torch.relu, nn.MaxPool2d(2), lambda s: 1 / s], ids=["relu", "max_pool", "quotient"])
def test_what_a_trace_has_no_meaning_for_is_refused(fn):
    net = nn.Sequential(fastsnn.LIF.for_rule("ottt"), Apply(fn))
    with pytest.raises(Exception, match=in_a_graph(r"TraceError.*s\.spikes")):
        compiled(net)(current(3, 4, 8, 8))


@pytest.mark.parametrize("join", [lambda s: torch.cat((s, s), 1), lambda s: torch.cat((s, s.spikes), 1)])
def test_a_tuple_of_traced_spikes_is_an_error_and_never_loses_the_trace(join):
    """torch.compile looks for overrides in lists, not in tuples."""
    net = nn.Sequential(fastsnn.LIF.for_rule("ottt"), Apply(join), nn.Linear(16, 3))
    with pytest.raises(Exception, match="meta"):
        compiled(net)(current(3, 8))


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize(
    "fn",
    [
        lambda s: torch.cat((s, s), 1)[:, :8],
        lambda s: s.T.transpose(0, 1),
        lambda s: s.data,
        torch.vmap(lambda s: 2 * s),
    ],
    ids=["cat", ".T", ".data", "vmap"],
)
def test_eager_spikes_that_enter_a_graph_never_lose_their_trace(fn, backend):
    s, linear, refused = neuron()(current(3, 8)), nn.Linear(8, 3), ""
    try:
        compiled(nn.Sequential(Apply(fn), linear), backend)(s).sum().backward()
    except Exception as error:
        refused = str(error)
    if refused:
        assert re.search(r"meta|s\.spikes", refused)
    else:
        assert TORCH < (2, 14)  # whose graphs keep the trace in some of these
        assert_same(linear.weight.grad, s.trace.sum(0).expand(3, 8), rtol=1e-6)


@pytest.mark.parametrize("fn", [lambda s: torch.stack([*s]), lambda s: operator.iadd(s, 1)], ids=["iteration", "+="])
def test_what_a_graph_cannot_hold_is_an_error(fn):
    net = nn.Sequential(fastsnn.LIF.for_rule("ottt"), Apply(fn), nn.Linear(8, 3))
    with pytest.raises(Exception, match=in_a_graph(r"_spikes|s = s \+ x", "meta")):
        compiled(net)(current(3, 8))


def test_traced_spikes_leave_and_enter_graphs():
    """Each layer compiled on its own."""
    x, results = current(4, 3, 8), []
    for split in (False, True):
        torch.manual_seed(1)
        net = nn.Sequential(fastsnn.LIF.for_rule("ottt", v_threshold=0.3), nn.Unflatten(1, (2, 4)), nn.Linear(4, 3))
        for layer in net if split else ():
            layer.compile(fullgraph=True, backend="aot_eager")
        results.append(train_by_step(net, net, x))
    assert_same(results[1], results[0])
    assert graphs() >= 3


def test_traced_spikes_out_of_a_graph_are_those_of_eager():
    x, results = current(3, 8).requires_grad_(), []
    for prepare in (lambda net: net, compiled):
        net = nn.Sequential(fastsnn.LIF.for_rule("ottt", v_threshold=0.3), fastsnn.Scale())
        s = prepare(net)(x)
        linear = nn.Linear(16, 2)
        nn.init.ones_(linear.weight)
        out = linear(torch.cat((s, s + 1), 1))
        out.sum().backward()
        seen = s.shape, s.device, s.dtype, s.requires_grad, s.tolist(), repr(s)[:20], s.is_leaf
        results.append((type(s), seen, s.spikes.detach(), s.trace, linear.weight.grad, x.grad))
        x.grad = None
    assert results[0][0] is TracedSpikes
    assert_same(results[1][1:], results[0][1:])
    assert results[1][0] is TracedSpikes


def test_a_forced_backend_holds_in_a_graph_compiled_before():
    step = compiled(fastsnn.LIF.for_rule("sltt"))
    step(torch.ones(3))
    step(torch.ones(3))
    with fastsnn.use_backend("cuda"), pytest.raises(fastsnn.BackendError, match="forced"):
        step(torch.ones(3))


def test_explain_says_that_the_neuron_ran_in_a_graph():
    net = fastsnn.LIF()
    compiled(net)(torch.ones(3))
    assert "last call: torch.compile" in net.explain()


def test_a_state_that_does_not_fit_raises_with_the_remedy():
    step = compiled(fastsnn.LIF())
    step(torch.ones(3))
    with pytest.raises(Exception, match=in_a_graph(r"fastsnn\.reset\(net\)")):
        step(torch.ones(5))


def test_states_leave_a_graph_whole():
    state = LIFState(torch.ones(3), True, torch.ones(3), None, torch.ones(3))
    for fn in (lambda s: s.map(torch.neg), lambda s: replaced(s, keep=None, is_v=False)):
        assert_same(compiled(fn)(state), fn(state))


FUNCTIONS = {
    "step": lambda x, v: fastsnn.functional.lif_step(x[0], v, rule="ottt", tau=1.7),
    "sequence": lambda x, v: fastsnn.functional.lif_sequence(x, v, surrogate_function=surrogate.ATan(1.5)),
    "standardize": lambda x, v: fastsnn.functional.standardize(x, torch.ones(4, 1, 1)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_equal_eager(name):
    x, v, results = current(4, 3, 8).requires_grad_(), torch.rand(3, 8), []
    for fn in (FUNCTIONS[name], compiled(FUNCTIONS[name])):
        out = fn(x, v)
        out = (out,) if isinstance(out, torch.Tensor) else out
        results.append((*out, *torch.autograd.grad((out[0] * x.detach()).sum(), x)))
    assert_same(results[1], results[0])


@pytest.mark.parametrize(("rule", "strict"), [("bptt", False), ("ottt", True)])
def test_export_with_any_time_and_batch(rule, strict):
    net, T, N = sequential(rule).eval(), torch.export.Dim("T", min=2), torch.export.Dim("N", min=2)
    program = torch.export.export(net, (current(4, 3, 8),), dynamic_shapes=({0: T, 1: N},), strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for T, B in ((4, 3), (9, 2)):
        x = current(T, B, 8)
        fastsnn.reset(net)
        assert_same(loaded(x), net(x))
    assert [node.target for node in program.graph.nodes].count(torch.ops.fastsnn.lif_forward.default) == 2


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
@pytest.mark.parametrize("case", ["step", "state"])
def test_export_of_what_needs_a_state_is_refused_with_the_remedy(case, strict):
    net = fastsnn.LIF(step_mode="s" if case == "step" else "m").eval()
    x = current(4, 3)
    if case == "state":
        net(x)
    with pytest.raises(Exception, match=in_a_graph(r"starts every call at t = 1.*step_mode='m'")):
        torch.export.export(net, (x,), strict=strict)


@pytest.mark.parametrize("rule", ["ottt", "ndot"])
def test_losses_take_traced_spikes(rule):
    net, x, y = fastsnn.LIF.for_rule(rule), current(3, 5).requires_grad_(), torch.tensor([0, 2, 1])

    def loss(x):
        return F.cross_entropy(net(x), y)

    expected = torch.autograd.grad(loss(x), x)
    fastsnn.reset(net)
    assert_same(torch.autograd.grad(plain(compiled(loss)(x)), x), expected)
