"""Weight gradients of several steps in one product."""

import threading
from contextlib import nullcontext
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastsnn
from fastsnn import TracedSpikes, online
from fastsnn.ops import synapse
from fastsnn.ops.synapse import MOST_STEPS, backward, steps_together

from ..cases import assert_same

F64 = torch.float64
SYNAPSES = {
    "linear": (lambda: nn.Linear(60, 50), (2, 60)),
    "linear of sequences": (lambda: nn.Linear(60, 50, bias=False), (1, 2, 60)),
    "conv1d": (lambda: nn.Conv1d(20, 24, 3, padding="same"), (2, 20, 5)),
    "conv2d": (lambda: nn.Conv2d(20, 24, 3, padding=1), (2, 20, 3, 4)),
    "conv2d of groups": (lambda: nn.Conv2d(24, 20, (3, 2), (2, 1), (0, 1), (1, 2), groups=2), (1, 24, 3, 3)),
    "conv2d of one sample": (lambda: nn.Conv2d(20, 24, 3), (20, 3, 4)),
    "conv3d": (lambda: nn.Conv3d(10, 12, 3, padding=1, bias=False), (1, 10, 2, 3, 2)),
}


@pytest.fixture(params=SYNAPSES)
def made(request):
    make, shape = SYNAPSES[request.param]
    return make().double(), shape


def inputs(shape, steps):
    """Spikes, a trace and the output's factor of each step."""
    spikes = [(torch.rand(shape, dtype=F64) < 0.3).double().requires_grad_() for _ in range(steps)]
    return [(s, torch.rand(shape, dtype=F64)) for s in spikes]


def steps(layer, given):
    """A backward of each step."""
    for t, (s, trace) in enumerate(given):
        y = layer(TracedSpikes.of(s, trace))
        backward((y.double() * torch.linspace(-1, t, y.numel(), dtype=F64).view(y.shape)).sum())


def learn(layer, given, once=False):
    """Gradients of the parameters, and of every step's spikes."""
    layer.zero_grad()
    for s, _ in given:
        s.grad = None
    with steps_together() if once else nullcontext():
        steps(layer, given)
    return [None if p.grad is None else p.grad.clone() for p in layer.parameters()], [s.grad for s, _ in given]


@pytest.fixture
def products():
    """The steps of each product of a weight gradient."""
    seen = []

    def count(gradients):
        def counted(*given):
            *_, trace, _, which = given
            if which[1]:
                seen.append(len(trace))
            return gradients(*given)

        return counted

    patched = {name: count(getattr(synapse, name)) for name in ("_linear_gradients", "_conv_gradients")}
    with mock.patch.multiple(synapse, **patched):
        yield seen


@pytest.mark.parametrize("steps", [1, 2, MOST_STEPS, 2 * MOST_STEPS + 1])
def test_the_sum_of_each_steps_gradient(made, steps, products):
    layer, shape = made
    given = inputs(shape, steps)
    expected, of_spikes = learn(layer, given)
    products.clear()
    found, found_of_spikes = learn(layer, given, once=True)
    assert len(products) == -(-steps // MOST_STEPS)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found_of_spikes, of_spikes, rtol=1e-12, atol=1e-12)
    for p in layer.parameters():
        assert p.grad.stride() == p.stride()


def test_channels_last(products):
    layer = nn.Conv2d(20, 24, 3, padding=1).double().to(memory_format=torch.channels_last)
    given = [(s, trace.contiguous(memory_format=torch.channels_last)) for s, trace in inputs((2, 20, 3, 4), 4)]
    expected, _ = learn(layer, given)
    products.clear()
    found, _ = learn(layer, given, once=True)
    assert products == [2 * MOST_STEPS, 2]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert layer.weight.grad.stride() == layer.weight.stride()


def test_operands_never_take_more_memory_than_the_weight(products):
    layer = nn.Linear(60, 50).double()
    learn(layer, inputs((13, 60), 4), once=True)  # 2 * 13 * (60 + 50) <= 60 * 50
    assert products == [26, 26]
    products.clear()
    learn(layer, inputs((14, 60), 4), once=True)
    assert products == [14] * 4


def test_batches_that_differ_and_a_weight_in_two_places(products):
    layer = nn.Linear(60, 60).double()
    given = [pair for n in (2, 1, 3) for pair in inputs((n, 60), 1)]

    def run(once):
        layer.zero_grad()
        with steps_together() if once else nullcontext():
            for s, trace in given:
                y = layer(TracedSpikes.of(s, trace)) + 2 * layer(TracedSpikes.of(s, 3 * trace))
                backward(y.square().sum())
        return [p.grad.clone() for p in layer.parameters()]

    expected = run(False)
    products.clear()
    torch.testing.assert_close(run(True), expected, rtol=1e-12, atol=1e-12)
    assert products == [4, 2, 6]


def test_an_empty_batch_has_a_gradient_of_zeros():
    layer = nn.Linear(60, 50).double()
    found, _ = learn(layer, inputs((0, 60), 2), once=True)
    assert_same(found, [torch.zeros_like(p) for p in layer.parameters()])


def test_gradients_that_were_there_are_added_to():
    layer, given = nn.Linear(60, 50).double(), inputs((2, 60), 4)
    expected, _ = learn(layer, given)
    layer.weight.grad = kept = torch.ones_like(layer.weight)
    with steps_together():
        steps(layer, given)
    assert layer.weight.grad is kept
    torch.testing.assert_close(kept - 1, expected[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_types_are_summed_in_the_weights_type(dtype, products):
    layer, given = nn.Linear(60, 50), inputs((2, 60), 7)
    given = [(s.detach().float().requires_grad_(), trace.float()) for s, trace in given]
    expected, _ = learn(layer, given)
    layer.zero_grad()
    products.clear()
    with steps_together(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        steps(layer, given)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    for p, wanted in zip(layer.parameters(), expected, strict=True):
        assert p.grad.dtype == p.dtype
        torch.testing.assert_close(p.grad, wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item())


def hooked(layer, seen):
    layer.weight.register_hook(lambda g: seen.append(g))


def hooked_after(layer, seen):
    layer.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p))


def hooked_bias(layer, seen):
    layer.bias.register_hook(lambda g: seen.append(g))


@pytest.mark.parametrize("hook", [hooked, hooked_after, hooked_bias])
def test_hooks_see_each_steps_gradient(hook, products):
    layer, seen = nn.Linear(60, 50).double(), []
    hook(layer, seen)
    learn(layer, inputs((2, 60), 4), once=True)
    assert len(seen) == len(products) == 4


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_what_is_frozen_has_no_gradient(frozen):
    layer, given = nn.Linear(60, 50).double(), inputs((2, 60), 4)
    learn(layer, given)
    other = "bias" if frozen == "weight" else "weight"
    expected = getattr(layer, other).grad.clone()
    getattr(layer, frozen).requires_grad_(False)
    layer.zero_grad()
    with steps_together():
        steps(layer, given)
    assert getattr(layer, frozen).grad is None
    torch.testing.assert_close(getattr(layer, other).grad, expected, rtol=1e-12, atol=1e-12)


def test_a_computed_weight_has_its_gradient_at_once(products):
    layer, ((s, trace),) = nn.Linear(60, 50).double(), inputs((2, 60), 1)
    with steps_together():
        backward(F.linear(TracedSpikes.of(s, trace), 2 * layer.weight).sum())
        assert products == [2]
        assert layer.weight.grad is not None


@pytest.mark.parametrize("again", [False, True])
def test_who_asks_for_a_gradient_between_has_it(again, products):
    layer, ((s, trace),) = nn.Linear(60, 50).double(), inputs((2, 60), 1)
    with steps_together():
        y = layer(TracedSpikes.of(s, trace)).sum()
        (g,) = torch.autograd.grad(y, layer.weight, retain_graph=True, create_graph=again)
        assert products == [2]
        y.backward(retain_graph=True)
        torch.testing.assert_close(layer.weight.grad, g)
        backward(y)
        assert products == [2, 2]
    torch.testing.assert_close(layer.weight.grad, 2 * g)


class Reused(torch.autograd.Function):
    """The identity, whose gradients all lie in one memory."""

    @staticmethod
    def forward(ctx, y, memory):
        ctx.memory = memory
        return y.clone()

    @staticmethod
    def backward(ctx, g):
        return ctx.memory.copy_(g), None


def test_what_is_written_later_has_left_its_values():
    layer, given = nn.Linear(60, 50).double(), inputs((2, 60), 3)
    expected, _ = learn(layer, given)
    layer.zero_grad()
    of_traces, of_gradients = torch.empty(2, 60, dtype=F64), torch.empty(2, 50, dtype=F64)

    def one_memory(s):
        return Reused.apply(layer(s), of_gradients)

    with steps_together():
        steps(one_memory, ((s, of_traces.copy_(trace).detach()) for s, trace in given))
    torch.testing.assert_close(layer.weight.grad, expected[0], rtol=1e-12, atol=1e-12)


def test_an_error_leaves_nothing_behind(products):
    layer, given = nn.Linear(60, 50).double(), inputs((2, 60), 1)

    def raising():
        with steps_together():
            steps(layer, given)
            raise KeyError

    with pytest.raises(KeyError):
        raising()
    assert layer.weight.grad is None
    steps(layer, given)
    assert products == [2]
    assert layer.weight.grad is not None


def test_of_this_thread_alone(products):
    layer, given = nn.Linear(60, 50).double(), inputs((2, 60), 1)
    other = threading.Thread(target=steps, args=(layer, given))
    with steps_together():
        other.start()
        other.join()
        assert products == [2]
        assert layer.weight.grad is not None


def vgg_like(norm):
    torch.manual_seed(0)
    synapse_of = fastsnn.WSConv2d if norm == "sws" else nn.Conv2d
    readout = fastsnn.WSLinear if norm == "sws" else nn.Linear
    layers = [synapse_of(3, 24, 3, padding=1), fastsnn.LIF.for_rule("ottt"), nn.AvgPool2d(2)]
    layers += [synapse_of(24, 24, 3, padding=1), fastsnn.LIF.for_rule("ottt", dropout=0.2), nn.Flatten()]
    return nn.Sequential(*layers, readout(24 * 4, 40), fastsnn.LIF.for_rule("ottt"), nn.Linear(40, 4)).double()


@pytest.mark.parametrize("norm", ["sws", None])
@pytest.mark.parametrize("k", [None, 2])
def test_a_batch_of_mode_a_is_the_sum_of_its_steps(norm, k, products):
    x, y = 2 * torch.randn(5, 2, 3, 4, 4, dtype=F64), torch.tensor([1, 3])
    nets = [vgg_like(norm) for _ in range(2)]
    grads = []
    for net, most in zip(nets, (MOST_STEPS, 1), strict=True):
        products.clear()
        torch.manual_seed(1)
        with mock.patch.object(synapse, "MOST_STEPS", most):
            online.train_batch(net, x, y, torch.optim.SGD(net.parameters(), 1.0), mode="A", backward_steps=k)
        grads.append([p.detach() for p in net.parameters()])
        steps = len(x) if k is None else k
        assert len(products) == (3 * steps if most == 1 else 2 * -(-steps // most) + steps)  # a readout is small
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)
