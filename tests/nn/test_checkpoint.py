"""Layers with state under gradient checkpointing: fastsnn.checkpoint is right, torch's raises."""

import gc

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

import fastsnn
from fastsnn import online
from fastsnn.ops.common import memory
from fastsnn.types import RULES

from ..cases import assert_same, current

T, N = 5, 4


def lif(rule, **kwargs):
    return fastsnn.LIF.for_rule(rule, v_threshold=0.3, **kwargs)


def around(neuron):
    return nn.Sequential(nn.Linear(7, 11), neuron, nn.Linear(11, 3))


def empf(version, step_mode="s"):
    neuron = fastsnn.EMPF(T, version, channels=11, threshold=0.1, step_mode=step_mode)
    if version == "II":
        nn.init.constant_(neuron.beta, 0.5)
    return neuron


SINGLE = {
    **{rule: lambda rule=rule: around(lif(rule)) for rule in RULES},
    "hard": lambda: around(fastsnn.LIF(v_threshold=0.3)),
    "dropout": lambda: around(lif("ottt", dropout=0.4)),
    "ots": lambda: around(lif("ottt", threshold="ots")),
    "ots-fixed": lambda: around(lif("sltt", threshold="ots", fixed_threshold=True)),
    "osr": lambda: nn.Sequential(nn.Linear(7, 11), fastsnn.OSR1d(11, 2), lif("ottt"), nn.Linear(11, 3)),
    "osrlif": lambda: around(fastsnn.OSRLIF.for_rule("ndot", 11, 2, v_threshold=0.3)),
    "osr-ots": lambda: around(fastsnn.OSRLIF.for_rule("sltt", 11, 3, threshold="ots")),
    **{f"empf-{version}": lambda version=version: around(empf(version)) for version in ("I", "II", "III")},
}
WHOLE = {
    **{rule: lambda rule=rule: around(lif(rule, step_mode="m")) for rule in RULES},
    "ots": lambda: around(lif("ottt", threshold="ots", step_mode="m")),
    **{f"empf-{version}": lambda version=version: around(empf(version, "m")) for version in ("I", "II", "III")},
}


def made(make):
    torch.manual_seed(0)
    return make().double()


def inputs(sequences=2):
    return 2 * current(sequences, T, N, 7, dtype=torch.float64)


def left_by(net):
    """Gradients, buffers and states after training."""
    return [p.grad for p in net.parameters()], [*net.buffers()], fastsnn.states(net)


def stepped(net, run, late):
    """Trains two sequences step by step; backward after each step, or after each sequence."""
    torch.manual_seed(1)
    outputs = []
    for x in inputs():
        fastsnn.reset(net)
        losses = []
        for t, x_t in enumerate(x):
            y = run(net, x_t)
            outputs.append(y.detach())
            losses.append((t + 1) * y.square().sum())
            if not late:
                losses[-1].backward()
        if late:
            sum(losses).backward()
    return outputs, *left_by(net)


def sequences(net, run):
    """As `stepped`, all steps of a sequence at once."""
    torch.manual_seed(1)
    outputs = []
    for x in inputs():
        fastsnn.reset(net)
        outputs.append(run(net, x))
        outputs[-1].square().sum().backward()
    return outputs, *left_by(net)


def plainly(net, x):
    return net(x)


@pytest.mark.parametrize("late", [False, True], ids=["each_step", "at_the_end"])
@pytest.mark.parametrize("name", SINGLE)
def test_steps_are_those_of_the_plain_network(name, late):
    if name == "hard" or (name in RULES and not RULES[name].online):
        late = True
    expected = stepped(made(SINGLE[name]), plainly, late)
    assert_same(stepped(made(SINGLE[name]), fastsnn.checkpoint, late), expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_sequences_are_those_of_the_plain_network(name):
    expected = sequences(made(WHOLE[name]), plainly)
    assert_same(sequences(made(WHOLE[name]), fastsnn.checkpoint), expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("rule", RULES)
def test_several_steps_and_a_nested_segment(rule):
    def some(net, x):
        return torch.stack([net(x_t) for x_t in x])

    def nested(net, x):
        return torch.stack([fastsnn.checkpoint(net, x_t) for x_t in x])

    def segments(net, x):
        return torch.cat([fastsnn.checkpoint(some, net, x[:2]), fastsnn.checkpoint(nested, net, x[2:])])

    expected = sequences(made(SINGLE[rule]), some)
    assert_same(sequences(made(SINGLE[rule]), segments), expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("rule", RULES)
def test_what_a_segment_writes_into_the_state_is_written_again(rule):
    def pushed(net, x):
        net[1].v += 0.1
        return net(x)

    def first(net, x):
        return net(x) if isinstance(net[1].v, float) else pushed(net, x)

    def checked(net, x):
        return fastsnn.checkpoint(first, net, x)

    expected = stepped(made(SINGLE[rule]), first, True)
    assert_same(stepped(made(SINGLE[rule]), checked, True), expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("rule", RULES)
def test_a_retained_graph_is_run_again_from_the_same_state(rule):
    net = made(SINGLE[rule])
    net(inputs()[0, 0])
    loss = fastsnn.checkpoint(net, inputs()[0, 1]).square().sum()
    first = torch.autograd.grad(loss, net[0].weight, retain_graph=True)
    net(inputs()[0, 2])
    net.eval()
    assert_same(torch.autograd.grad(loss, net[0].weight), first)
    assert not net[1].training


@pytest.mark.parametrize("rule", ["sltt", "ndot"])
def test_large_states_are_kept_for_the_second_run(rule):
    results, inputs = [], current(4, 1, 1)
    for run in (plainly, fastsnn.checkpoint):
        net, losses = nn.Sequential(nn.Linear(1, memory.WORTH_ASKING), lif(rule)), []
        nn.init.constant_(net[0].weight, 0.4)
        nn.init.constant_(net[0].bias, 0.1)
        for x in inputs:
            losses.append((1 + len(losses)) * fastsnn.nn.plain(run(net, x)).square().sum())
        sum(losses).backward()
        results.append(net[0].weight.grad)
    assert_same(results[1], results[0])


class Checkpointed(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return fastsnn.checkpoint(self.block, x)


@pytest.mark.parametrize("mode", ["O", "A"])
def test_training_repeats_a_segment_from_the_state_that_its_step_had(mode):
    x, y = current(4, 2, 8).double(), torch.tensor([0, 1])
    found = []
    for wrap in (Checkpointed, nn.Identity()):
        torch.manual_seed(0)
        neurons = fastsnn.LIF.for_rule("ottt", dropout=0.1), fastsnn.LIF.for_rule("ndot")
        block = nn.Sequential(
            nn.Linear(8, memory.WORTH_ASKING), neurons[0], nn.Linear(memory.WORTH_ASKING, 9), neurons[1]
        )
        net = nn.Sequential(wrap(block), nn.Linear(9, 3)).double()
        online.train_batch(net, x, y, torch.optim.SGD(net.parameters(), 0.5), mode=mode)
        found.append([p.detach() for p in net.parameters()])
    assert_same(*found)


def test_the_second_run_saves_memory():
    def alive(run):
        gc.collect()
        held = []
        net = nn.Sequential(*(m for _ in range(6) for m in (nn.Linear(64, 64), lif("sltt"))))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.numel()) or t, lambda t: t):
            run(net, torch.randn(8, 64))
        return sum(held)

    assert alive(fastsnn.checkpoint) == 8 * 64 < alive(plainly)  # its input


REFUSED = {**SINGLE, "step_affine": lambda: around(step_affine())}


def step_affine():
    return fastsnn.deploy.StepAffine(torch.ones(T, 11), torch.zeros(T, 11))


@pytest.mark.parametrize("reentrant", [False, True], ids=["non_reentrant", "reentrant"])
@pytest.mark.parametrize("name", REFUSED)
def test_torchs_checkpoint_raises_and_leaves_the_state(name, reentrant):
    net, x = made(REFUSED[name]), inputs()[0]
    net(x[0])
    y = torch_checkpoint(net, x[1].requires_grad_(), use_reentrant=reentrant)
    before = fastsnn.states(net)
    with pytest.raises(RuntimeError, match=r"keeps state between calls.*fastsnn\.checkpoint\(function, \*args\)"):
        y.sum().backward()
    assert_same(fastsnn.states(net), before)


class Recomputed(torch.autograd.Function):
    """Recomputation as memory optimisers write it."""

    @staticmethod
    def forward(ctx, layer, x):
        ctx.layer = layer
        ctx.save_for_backward(x)
        with torch.no_grad():
            return layer(x)

    @staticmethod
    def backward(ctx, g):
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.layer(x)
        return None, *torch.autograd.grad(y, x, g)


@pytest.mark.parametrize("name", ["bptt", "sltt", "empf-I"])
def test_recomputation_of_ones_own_raises(name):
    net = made(SINGLE[name])
    with pytest.raises(RuntimeError, match=r"fastsnn\.checkpoint"):
        Recomputed.apply(net, inputs()[0, 0].requires_grad_()).sum().backward()


def test_layers_without_state_may_be_recomputed():
    norm = fastsnn.OSR1d(7, 2).double().eval()
    torch_checkpoint(norm, inputs()[0, 0].requires_grad_(), use_reentrant=False).sum().backward()


def test_a_state_may_be_read_within_a_backward_pass():
    net, seen = made(SINGLE["ottt"]), []
    y = net(inputs()[0, 0])
    y.register_hook(lambda g: seen.append((net[1].v, net[1].state)))
    y.sum().backward()
    assert len(seen) == 1


def test_a_function_that_does_something_else_the_second_time_raises():
    net, calls = made(SINGLE["sltt"]), []

    def other(x):
        calls.append(x)
        return net(x) if len(calls) > 1 else net[2](net[0](x))

    with pytest.raises(RuntimeError, match="the function must do the same each time"):
        fastsnn.checkpoint(other, inputs()[0, 0]).sum().backward()


def test_reentrant_is_refused():
    with pytest.raises(ValueError, match="use_reentrant=True cuts the state"):
        fastsnn.checkpoint(made(SINGLE["sltt"]), inputs()[0, 0], use_reentrant=True)


COMPILED = {
    "module": lambda net: torch.compile(net, backend="eager"),
    "layer": lambda net: nn.Sequential(torch.compile(net[0], backend="eager"), torch.compile(net[1], backend="eager")),
    "function": lambda net: torch.compile(lambda x: net(x), backend="eager"),
}


@pytest.mark.parametrize("how", COMPILED)
def test_compiled_layers_are_refused(how):
    with pytest.raises(RuntimeError, match="does not see the state of compiled layers"):
        fastsnn.checkpoint(COMPILED[how](made(SINGLE["sltt"])), inputs()[0, 0])
