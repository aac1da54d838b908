"""What wraps layers without knowing traced spikes: autograd.Function, hooks, checkpoints, many processes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import fastsnn
from fastsnn import TracedSpikes, TraceError
from fastsnn.nn import UntracedCurrent

from ..cases import assert_same
from .test_traced import spiking

WORKER = Path(__file__).parent / "wrapped_worker.py"


class Function(torch.autograd.Function):
    """Of one operand whose gradient comes back three times as large."""

    @staticmethod
    def backward(ctx, g):
        return 3 * g


class Same(Function):
    forward = staticmethod(lambda ctx, x: x)


class Copied(Function):
    forward = staticmethod(lambda ctx, x: x.clone())


class Saved(Function):
    @staticmethod
    def forward(ctx, x):
        y = x.view_as(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        assert type(x) is type(y) is TracedSpikes
        return 3 * g * (x.detach().spikes == y.spikes)


class WithGraphInside(Function):
    @staticmethod
    def forward(ctx, x):
        with torch.enable_grad():
            return x.detach().requires_grad_() * 1


class Marked(Function):
    @staticmethod
    def forward(ctx, x):
        shifted = x + 1
        ctx.mark_non_differentiable(shifted)
        return x * 1, shifted

    @staticmethod
    def backward(ctx, g, _):
        return 3 * g


FUNCTIONS = {
    "same": Same.apply,
    "copied": Copied.apply,
    "saved": Saved.apply,
    "graph-inside": WithGraphInside.apply,
    "marked": lambda s: Marked.apply(s)[0],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("of_leaf", [False, True])
def test_a_function_of_traced_spikes_gives_traced_spikes(name, of_leaf):
    s, linear = spiking(3, 7), nn.Linear(7, 5).double()
    between = s if of_leaf else 2 * s
    out = FUNCTIONS[name](between)
    assert type(out) is TracedSpikes
    linear(out).sum().backward()
    factor = 1 if of_leaf else 2
    assert_same(linear.weight.grad, factor * s.trace.sum(0).expand(5, 7), rtol=1e-12, atol=1e-12)
    assert_same(s.spikes.grad, 3 * factor * linear.weight.detach().sum(0).expand(3, 7), rtol=1e-12, atol=1e-12)


def test_what_a_function_leaves_without_gradient_keeps_its_trace():
    s, linear = spiking(3, 7), nn.Linear(7, 5).double()
    linear(Marked.apply(s)[1]).sum().backward()
    assert_same(linear.weight.grad, (s.trace + 1).sum(0).expand(5, 7), rtol=1e-12, atol=1e-12)
    assert s.spikes.grad is None


class Rounded(Function):
    """A quantiser with straight-through gradient."""

    forward = staticmethod(lambda ctx, x: torch.round(4 * x) / 4)


class Sign(Function):
    forward = staticmethod(lambda ctx, x: (x > 0).to(x.dtype))


class Synapse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g @ weight.t(), x.t() @ g


class Gain(Synapse):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x.spikes * weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g * weight, (x * g).sum(0)


def weight(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


REFUSED = {
    "quantiser": lambda s: Rounded.apply(s),
    "weights-behind-a-comparison": lambda s: F.linear(Sign.apply(s), weight(2, 7)),
    "synapse": lambda s: Synapse.apply(s, weight(7, 2)).sum().backward(),
    "gain": lambda s: Gain.apply(s, weight(7)).sum().backward(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_function_that_cannot_be_right_is_refused(name):
    with pytest.raises(TraceError, match=r"s\.spikes"):
        REFUSED[name](spiking(3, 7))


def test_a_comparison_with_a_gradient_of_its_own_is_a_current():
    s = spiking(3, 7)
    out = Sign.apply(s)
    assert type(out) is UntracedCurrent
    out.sum().backward()
    assert_same(s.spikes.grad, torch.full((3, 7), 3.0, dtype=torch.float64))


class TracedSynapse(Synapse):
    """The remedy."""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g @ weight.t(), x.trace.t() @ g


def test_a_function_that_reads_the_trace_is_right():
    s, w = spiking(3, 7), weight(7, 2)
    TracedSynapse.apply(s, w).sum().backward()
    assert_same(w.grad, s.trace.sum(0)[:, None].expand(7, 2), rtol=1e-12, atol=1e-12)


def network(rule="ottt"):
    torch.manual_seed(1)
    layers = [nn.Linear(7, 9), fastsnn.LIF.for_rule(rule, v_threshold=0.3), fastsnn.WSLinear(9, 8)]
    return nn.Sequential(*layers, fastsnn.LIF.for_rule(rule, v_threshold=0.3), nn.Linear(8, 4)).double()


def gradients(net, run):
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        run(net, torch.randn(5, 7, dtype=torch.float64, generator=generator)).square().sum().backward()
    return [p.grad for p in net.parameters()]


def hooked(net, x):
    seen, handles = [], []
    for layer in net:
        handles.append(layer.register_full_backward_hook(lambda m, g_in, g_out: seen.append(g_out[0].shape)))
        handles.append(layer.register_full_backward_pre_hook(lambda m, g_out: seen.append(g_out[0].shape)))
    y = net(x)
    y.register_hook(lambda g: [assert_same(len(seen), 0), [handle.remove() for handle in handles], None][-1])
    return y


def by_layer(use_reentrant):
    """Checkpoints around everything but the neurons."""

    def run(net, x):
        x = x.requires_grad_()  # a reentrant checkpoint needs it
        for layer in net:
            again = not isinstance(layer, fastsnn.LIF)
            x = checkpoint(layer, x, use_reentrant=use_reentrant) if again else layer(x)
        return x

    return run


def offloaded(net, x):
    with torch.autograd.graph.save_on_cpu():
        return net(x)


def with_tensor_hooks(net, x):
    for layer in net:
        x = layer(x)
        x.register_hook(lambda g: 2 * g)
        x.register_hook(lambda g: g / 2)
    return x


def held_by_hooks(net, x):
    outputs = []
    for layer in net:
        outputs.append(x := layer(x))
    torch.autograd.graph.register_multi_grad_hook(outputs, lambda grads: [g.shape for g in grads])
    return x


WRAPPERS = {
    "hooks": hooked,
    "tensor-hooks": with_tensor_hooks,
    "multi-grad-hook": held_by_hooks,
    "checkpoint": by_layer(False),
    "reentrant": by_layer(True),
    "save_on_cpu": offloaded,
}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("rule", ["ottt", "ndot"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapped_layers_train_as_bare_ones(name, rule):
    expected = gradients(network(rule), lambda net, x: net(x))
    assert_same(gradients(network(rule), WRAPPERS[name]), expected, rtol=1e-12, atol=1e-12)


def test_gradients_that_full_hooks_see_are_the_spikes():
    net, seen = network(), []
    net[1].register_full_backward_hook(lambda m, g_in, g_out: seen.append(g_out[0]))
    net[2].register_full_backward_hook(lambda m, g_in, g_out: seen.append(g_in[0]))
    s = net[1](net[0](torch.randn(5, 7, dtype=torch.float64)))
    s.retain_grad()
    net[2](s).sum().backward()
    assert_same(seen, [s.grad, s.grad])


def test_a_leaf_of_traced_spikes_takes_its_gradient_itself():
    s, linear = spiking(3, 7).detach().requires_grad_(), nn.Linear(7, 5).double()
    assert s.is_leaf
    linear(Same.apply(s)).sum().backward()
    linear(s).sum().backward()
    assert_same(s.grad, 4 * linear.weight.detach().sum(0).expand(3, 7), rtol=1e-12, atol=1e-12)
    assert_same(*torch.autograd.grad(linear(2 * s).sum(), s), s.grad / 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Parameters after 12 updates: by one process, and by two under each wrapper."""
    folder = tmp_path_factory.mktemp("wrapped")
    ranks = [subprocess.Popen([sys.executable, WORKER, folder, rank]) for rank in ("0", "1")]
    assert [rank.wait(300) for rank in ranks] == [0, 0]
    return torch.load(folder / "trained")


@pytest.mark.slow
@pytest.mark.parametrize("case", ["ottt", "ndot", "ftrl"])
@pytest.mark.parametrize("wrapper", ["fsdp2", "static_graph", "find_unused_parameters", "ddp"])
def test_two_processes_train_as_one(trained, wrapper, case):
    one, two = trained["one", case], trained[wrapper, case]
    assert_same(two, one, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(one[0], trained["start", case][0])
