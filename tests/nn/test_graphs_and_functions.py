"""Where a graph of torch.compile meets what looks at autograd's nodes: right, or refused, never silently wrong."""

import re

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fastsnn

from ..cases import in_a_graph


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -g


class OwnSynapse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s, weight):
        ctx.save_for_backward(s, weight)
        return s.spikes @ weight.t()

    @staticmethod
    def backward(ctx, g):
        s, weight = ctx.saved_tensors
        return g @ weight, g.t() @ s.trace


def network(rule="ottt"):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 9), fastsnn.LIF.for_rule(rule), nn.Linear(9, 4))
    nn.init.uniform_(net[0].weight, 0, 1)
    return net


def inputs(steps=3):
    return torch.rand(steps, 3, 7, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def fresh_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("rule", ["ottt", "bptt"])
def test_torchs_checkpoint_of_a_compiled_network_raises(rule, reentrant):
    net = torch.compile(network(rule), backend="aot_eager")
    xs = inputs().requires_grad_()
    loss = sum((checkpoint(net, x, use_reentrant=reentrant) ** 2).sum() for x in xs)
    with pytest.raises(RuntimeError, match="was called within a backward pass, as gradient checkpointing"):
        loss.backward()


def test_a_compiled_network_hidden_from_fastsnns_checkpoint_raises():
    net = torch.compile(network(), backend="aot_eager")
    loss = sum((fastsnn.checkpoint(lambda x: net(x), x) ** 2).sum() for x in inputs())
    with pytest.raises(RuntimeError, match="was called within a backward pass"):
        loss.backward()


@pytest.mark.parametrize("fullgraph", [False, True])
def test_a_function_of_traced_spikes_inside_a_graph_is_refused(fullgraph):
    net = network()
    run = torch.compile(lambda x: net[2](Reversal.apply(net[1](net[0](x)))), backend="aot_eager", fullgraph=fullgraph)
    with pytest.raises((fastsnn.TraceError, torch._dynamo.exc.Unsupported)) as refused:
        run(inputs()[0])
    words = f"{refused.value} {refused.value.__context__}"
    assert re.search(in_a_graph("autograd.Function was given traced spikes"), words)


def test_a_function_outside_of_a_graph_of_the_layer_before_is_refused():
    net = network()
    spikes = torch.compile(net[1], backend="aot_eager")(net[0](inputs()[0]))
    with pytest.raises(fastsnn.TraceError, match=r"autograd\.Function was given traced spikes"):
        Reversal.apply(spikes)


def test_a_full_hook_on_a_compiled_neuron_is_refused():
    net = network()
    net[1].register_full_backward_hook(lambda module, given, got: None)
    compiled = torch.compile(net[1], backend="aot_eager")
    with pytest.raises(fastsnn.TraceError, match=r"autograd\.Function was given traced spikes"):
        compiled(net[0](inputs()[0]))


def test_a_function_that_is_a_synapse_has_the_traces_gradient_and_no_second_one():
    net, x = network(), inputs()[0]
    spikes = net[1](net[0](x))
    y = OwnSynapse.apply(spikes, net[2].weight)
    (g,) = torch.autograd.grad((y**2).sum(), net[2].weight, retain_graph=True)
    torch.testing.assert_close(g, (2 * y).t() @ spikes.trace)
    (g,) = torch.autograd.grad((y**2).sum(), net[2].weight, create_graph=True)
    with pytest.raises(RuntimeError, match="first order"):
        (g**2).sum().backward()


def test_spikes_written_into_a_picture_are_said_to_lose_their_trace():
    spikes, picture = network()[:2](inputs()[0]), torch.zeros(2, 3, 9)
    with torch.no_grad(), pytest.warns(UserWarning, match="under no_grad: it takes the spikes alone"):
        picture[0].copy_(spikes)
    assert type(picture) is torch.Tensor
    with torch.no_grad():
        whole = torch.zeros(3, 9).copy_(spikes)
    assert isinstance(whole, fastsnn.TracedSpikes)


def test_spikes_that_require_gradient_late_are_a_leaf():
    net = network()
    with torch.no_grad():
        spikes = net[1](net[0](inputs()[0]))
    before = spikes.reshape(3, 9)
    spikes.requires_grad_()
    y = net[2](spikes)
    y.sum().backward()
    torch.testing.assert_close(spikes.grad, net[2].weight.detach().sum(0).expand(3, 9))
    torch.testing.assert_close(net[2].weight.grad, spikes.trace.sum(0).expand(4, 9))
    assert not before.requires_grad
