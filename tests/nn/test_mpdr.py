"""MPDR in networks: which weights it reaches, and what it tells."""

import copy
import itertools
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.nn import plain
from fastsnn.online import MPDR, regularisation

from ..cases import OF_LIF, ONLINE, assert_same, current, in_a_graph

TARGET = {"mean": -0.3, "std": 0.8, "weight": 3.0}
CLOSE = {"rtol": 1e-9, "atol": 1e-12}
WORKER = Path(__file__).with_name("mpdr_worker.py")


def network(rule, mpdr, norm=False):
    """Two regularised layers of convolutions and one linear."""
    torch.manual_seed(1)

    def neuron():
        return fastsnn.LIF.for_rule(rule, v_threshold=0.4, mpdr=mpdr)

    layers = [
        nn.Conv2d(2, 4, 3, padding=1),
        *([nn.BatchNorm2d(4)] if norm else []),
        neuron(),
        fastsnn.Scale(),
        nn.AvgPool2d(2),
        fastsnn.WSConv2d(4, 6, 3),
        neuron(),
        nn.Flatten(),
        nn.Linear(24, 5),
        neuron(),
        nn.Linear(5, 3),
    ]
    return nn.Sequential(*layers).double()


def images(T=3):
    return current(T, 3, 2, 8, 8, dtype=torch.float64)


def trained(net, x):
    """Gradients of a loss over all steps, one backward a step."""
    fastsnn.reset(net)
    net.zero_grad()
    for x_t in x:
        (plain(net(x_t)).square().sum() + regularisation(net)).backward()
    return [p.grad.clone() for p in net.parameters()]


def penalty(u):
    target = torch.distributions.Normal(*torch.tensor([TARGET["mean"], TARGET["std"]], dtype=u.dtype))
    own = torch.distributions.Normal(u.mean(), u.std(correction=0))
    return TARGET["weight"] * (torch.distributions.kl_divergence(own, target) + 0.01 * u.var(correction=0))


def explicit(rule, x, propagate):
    """The same by autograd: the plain network, and each layer's own loss on u = lam*v + x, in one backward a step.
    A layer's loss alone reaches its own synapse only."""
    net = network(rule, None)
    neurons = [m for m in net if isinstance(m, fastsnn.LIF)]
    synapses = [m for m in net if isinstance(m, (nn.Conv2d, nn.Linear))][:-1]
    total = [torch.zeros_like(p) for p in net.parameters()]
    before = [0.0] * len(neurons)
    for x_t in x:
        outputs = list(itertools.accumulate(net, lambda value, layer: layer(value), initial=x_t))
        loss = plain(outputs[-1]).square().sum()
        currents = [value for value, layer in zip(outputs, net, strict=False) if layer in neurons]
        penalties = [penalty(n._params.leak * v + x) for n, v, x in zip(neurons, before, currents, strict=True)]
        add(total, torch.autograd.grad(loss, [*net.parameters()], retain_graph=True))
        for synapse, own in zip(synapses, penalties, strict=True):
            some = [*net.parameters()] if propagate else [*synapse.parameters()]
            found = torch.autograd.grad(own, some, retain_graph=True, allow_unused=True)
            by_parameter = dict(zip(some, found, strict=True))
            add(total, [by_parameter.get(p) for p in net.parameters()])
        before = [neuron.v.detach() for neuron in neurons]
    return total


def add(total, gradients):
    for t, g in zip(total, gradients, strict=True):
        if g is not None:
            t += g


@pytest.mark.parametrize("propagate", [False, True], ids=["own", "all"])
@pytest.mark.parametrize("rule", OF_LIF)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_gradients_are_those_of_the_explicit_loss(backend, rule, propagate):
    x = images()
    with fastsnn.use_backend(backend):
        found = trained(network(rule, MPDR(**TARGET, propagate=propagate)), x)
        truth = explicit(rule, x, propagate)
    assert_same(found, truth, **CLOSE)
    assert not torch.allclose(found[0], trained(network(rule, None), x)[0])


@pytest.mark.parametrize("propagate", [False, True], ids=["own", "all"])
@pytest.mark.parametrize("rule", ONLINE)
def test_one_late_backward_equals_one_a_step(rule, propagate):
    x, net = images(), network(rule, MPDR(**TARGET, propagate=propagate))
    expected = trained(net, x)
    fastsnn.reset(net)
    loss = sum(plain(net(x_t)).square().sum() + regularisation(net) for x_t in x)
    for _ in range(2):
        net.zero_grad()
        loss.backward(retain_graph=True)
        assert_same([p.grad for p in net.parameters()], expected, **CLOSE)


@pytest.mark.parametrize("rule", ONLINE)
def test_propagation_changes_lower_layers_and_no_others(rule):
    x = images()
    own, every = (trained(network(rule, MPDR(**TARGET, propagate=p)), x) for p in (False, True))
    changed = [not torch.allclose(a, b) for a, b in zip(own, every, strict=True)]
    # conv, WS conv and its gain; the linear before the last neuron and the readout take the same from both
    assert changed == [True] * 5 + [False] * 4


@pytest.mark.parametrize("rule", ONLINE)
def test_the_gradient_of_the_input_is_the_losss_alone(rule):
    results = []
    for mpdr in (None, MPDR(**TARGET)):
        torch.manual_seed(0)
        synapse, first = nn.Linear(7, 5).double(), fastsnn.LIF.for_rule(rule, mpdr=mpdr)
        last = fastsnn.LIF.for_rule(rule, mpdr=mpdr)
        x = current(4, 7, dtype=torch.float64).requires_grad_()
        out = plain(last(synapse(first(x))))
        terms = sum(regularisation(neuron) for neuron in (first, last))
        results.append(torch.autograd.grad(out.square().sum() + out.sum() + terms, x))
    # x feeds a neuron without a synapse: the first neuron's own loss is in its gradient, the second's is not
    alone = fastsnn.LIF.for_rule(rule, mpdr=MPDR(**TARGET, propagate=True))
    leaf = x.detach().requires_grad_()
    alone(leaf)
    (own,) = torch.autograd.grad(regularisation(alone), leaf)
    assert_same(results[1][0], results[0][0] + own, rtol=1e-10, atol=1e-12)


def test_two_neurons_behind_one_synapse_both_count():
    x, grads = current(4, 7, dtype=torch.float64), []
    for copies in (1, 2):
        torch.manual_seed(0)
        net = nn.Sequential(fastsnn.LIF.for_rule("sltt", mpdr=MPDR(**TARGET)), nn.Linear(7, 5)).double()
        neurons = [fastsnn.LIF.for_rule("sltt", mpdr=MPDR(**TARGET)) for _ in range(copies)]
        y = net(x.requires_grad_())
        for neuron in neurons:
            neuron(y)
        sum(regularisation(neuron) for neuron in neurons).backward()
        grads.append(net[1].weight.grad)
    assert grads[0].any()
    assert_same(grads[1], 2 * grads[0], rtol=1e-12)


class Scaled(nn.Module):
    def forward(self, x):
        return x / 1.7


class Sum(nn.Module):
    """A residual block's sum of two synapses' currents behind one neuron."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(7, 7), nn.Linear(7, 7, bias=False)

    def forward(self, s):
        return self.a(s) + self.b(s)


BETWEEN = {
    "batch norm": lambda: [nn.Linear(7, 7), nn.BatchNorm1d(7)],
    "osr": lambda: [nn.Linear(7, 7), fastsnn.OSR1d(7, 3)],
    "x/beta": lambda: [fastsnn.WSLinear(7, 7), Scaled()],
    "sum": lambda: [Sum(), nn.BatchNorm1d(7)],
    "plain spikes": lambda: [nn.Linear(7, 7)],
}


@pytest.mark.parametrize("rule", ["sltt", "ottt"])
@pytest.mark.parametrize("name", BETWEEN)
def test_the_layers_own_weights_are_all_that_lies_behind_the_neurons_before(name, rule):
    """The gradient of the loss alone below, and autograd's of L_M on the layer alone for its own weights."""
    x = current(3, 9, 5, dtype=torch.float64)

    def build(mpdr):
        torch.manual_seed(2)
        lower = nn.Sequential(nn.Linear(5, 7), fastsnn.LIF.for_rule(rule)).double()
        return (
            lower,
            nn.Sequential(*BETWEEN[name]()).double(),
            fastsnn.LIF.for_rule(rule, mpdr=mpdr),
            nn.Linear(7, 2).double(),
        )

    grads = []
    for mpdr in (None, MPDR(**TARGET)):
        lower, own, neuron, last = build(mpdr)
        net = nn.Sequential(lower, own, neuron, last)
        for x_t in x:
            (last(neuron(own(lower(x_t)))).square().sum() + regularisation(net)).backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    lower, own, neuron, last = build(None)
    kept = [torch.zeros_like(p) for p in own.parameters()]
    v = 0.0
    for x_t in x:
        current_t = own(lower(x_t))
        add(kept, torch.autograd.grad(penalty(0.5 * v + current_t), [*own.parameters()], allow_unused=True))
        neuron(current_t)
        v = neuron.v.detach()
    expected = [a + b for a, b in zip(grads[0][2:-2], kept, strict=True)]
    assert_same(grads[1][2:-2], expected, rtol=1e-8, atol=1e-11)
    assert all(k.any() for k, (key, _) in zip(kept, own.named_parameters(), strict=True) if "bias" not in key)
    assert_same([*grads[1][:2], *grads[1][-2:]], [*grads[0][:2], *grads[0][-2:]])


def test_a_weight_used_below_too_takes_its_own_layers_part_alone():
    shared = nn.Linear(6, 6, bias=False).double()
    first, second = (fastsnn.LIF.for_rule("sltt", mpdr=mpdr) for mpdr in (None, MPDR(**TARGET)))
    x = current(8, 6, dtype=torch.float64)
    spikes = first(shared(x))
    second(shared(spikes))
    regularisation(second).backward()
    found, shared.weight.grad = shared.weight.grad, None
    penalty(shared(spikes.detach())).backward()
    assert_same(found, shared.weight.grad, rtol=1e-10, atol=1e-13)


def test_a_norm_behind_the_first_synapse_is_part_of_its_layer():
    own, every = (trained(network("sltt", MPDR(**TARGET, propagate=p), norm=True), images()) for p in (False, True))
    assert own[2].any()
    assert not torch.allclose(own[0], every[0])


def test_it_is_a_loss():
    """Scaled with it, once for two backwards, nothing without it; a1 of the layer."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 16), fastsnn.LIF.for_rule("sltt", mpdr=MPDR(0.0, 1.0, 0.5)), nn.Linear(16, 3)
    ).double()
    x = torch.randn(5, 8, dtype=torch.float64)
    weight = net[0].weight

    def found(make):
        fastsnn.reset(net)
        net.zero_grad()
        make(net(x).square().sum())
        return weight.grad.clone()

    alone = found(lambda loss: loss.backward())
    u = net[0](x)
    m, var = u.mean(), u.var(correction=0)
    l_m = -var.log() / 2 + (var + m * m) / 2 - 0.5 + 0.01 * var
    right = alone + torch.autograd.grad(0.5 * l_m, weight)[0]
    assert_same(found(lambda loss: (loss + regularisation(net)).backward()), right, **CLOSE)
    assert_same(found(lambda loss: (loss + 0.5 * net[1].mpdr_loss).backward()), right, **CLOSE)
    assert_same(found(lambda loss: (1024 * (loss + regularisation(net))).backward()), 1024 * right, **CLOSE)

    def twice(loss):
        (loss + regularisation(net)).backward(retain_graph=True)
        (0 * loss).backward()

    assert_same(found(twice), right, **CLOSE)

    def apart(loss):
        loss.backward(retain_graph=True)
        regularisation(net).backward()

    assert_same(found(apart), right, **CLOSE)
    assert_same(net[1].mpdr_loss.detach(), l_m.detach().view(1), rtol=1e-12)


def test_grad_scaler_and_accumulation():
    right, x = None, images()[0].float()
    for scale, parts in ((1.0, 1), (65536.0, 1), (1.0, 4)):
        net = network("ottt", MPDR(**TARGET)).float()
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for _ in range(parts):
            fastsnn.reset(net)
            loss = plain(net(x)).square().sum() + regularisation(net)
            scaler.scale(loss / parts).backward()
        scaler.unscale_(optimizer)
        found = [p.grad.clone() for p in net.parameters()]
        right = right or found
        assert_same(found, right, rtol=1e-4, atol=1e-5)


def test_regularisation_of_networks():
    net = network("sltt", MPDR(**TARGET))
    with pytest.raises(RuntimeError, match="1 has MPDR and no potentials yet: call net"):
        regularisation(net)
    net(images()[0])
    losses = [neuron.mpdr_loss for neuron in net if isinstance(neuron, fastsnn.LIF)]
    terms = torch.stack([TARGET["weight"] * loss.sum() for loss in losses])
    assert_same(regularisation(net).detach(), terms.sum().detach())
    assert regularisation(nn.Linear(2, 2)) == 0
    with torch.no_grad():
        net(images()[0])
    assert not regularisation(net).requires_grad


def test_copies_and_pickles_of_a_neuron_with_a_graph():
    net = network("ottt", MPDR(**TARGET))
    net(images()[0])
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert_same(copied[1].moments, net[1].moments.detach())
        assert not copied[1].moments.requires_grad


def test_train_batch_adds_it_and_stgr_keeps_it_out_of_the_previous_gradient():
    x, y = images(), torch.tensor([0, 1, 2])
    for make in (torch.optim.SGD, lambda p, lr: fastsnn.optim.STGR(torch.optim.SGD(p, lr, momentum=0.9))):
        net, twin = network("sltt", MPDR(**TARGET)), network("sltt", MPDR(**TARGET))
        optimizer, other = make(net.parameters(), 0.1), make(twin.parameters(), 0.1)
        loss = lambda o, y, T: fastsnn.online.loss(plain(o), y, T)  # noqa: E731
        fastsnn.online.train_batch(net, x, y, optimizer, loss=loss)
        for x_t in x:
            step = loss(twin(x_t), y, 3)
            task = torch.autograd.grad(step, [*twin.parameters()], retain_graph=True)
            (step + regularisation(twin)).backward()
            other.step()
            other.zero_grad()
            if isinstance(other, fastsnn.optim.STGR):
                for p, g in zip(twin.parameters(), task, strict=True):
                    other.state[p]["previous"].copy_(g)
        assert_same([*net.state_dict().values()], [*twin.state_dict().values()], **CLOSE)


def test_mode_a_keeps_the_terms_gradient_from_stgr():
    """One step with the sum of both gradients; g_{t-1} is that of the task over all steps."""
    x, y = images(), torch.tensor([0, 1, 2])
    net, twin = network("sltt", MPDR(**TARGET)), network("sltt", MPDR(**TARGET))
    optimizer, other = (fastsnn.optim.STGR(torch.optim.SGD(n.parameters(), 0.1, momentum=0.9)) for n in (net, twin))
    loss = lambda o, y, T: fastsnn.online.loss(plain(o), y, T)  # noqa: E731
    for _ in range(3):
        fastsnn.online.train_batch(net, x, y, optimizer, loss=loss, mode="A")
        task = [torch.zeros_like(p) for p in twin.parameters()]
        other.zero_grad()
        for x_t in x:
            step = loss(twin(x_t), y, len(x))
            more = torch.autograd.grad(step, [*twin.parameters()], retain_graph=True)
            task = [total + g for total, g in zip(task, more, strict=True)]
            (step + regularisation(twin)).backward()
        fastsnn.reset(twin)
        other.step()
        for p, g in zip(twin.parameters(), task, strict=True):
            other.state[p]["previous"].copy_(g)
        assert_same([*net.state_dict().values()], [*twin.state_dict().values()], **CLOSE)


@pytest.mark.parametrize("rule", ["bptt", "sltt"])
def test_one_backward_through_all_steps_keeps_the_terms_gradient_from_stgr(rule):
    x, y = current(3, 4, 7, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    torch.manual_seed(1)
    neuron = fastsnn.LIF.for_rule(rule, step_mode="m", v_threshold=0.4, mpdr=MPDR(**TARGET, propagate=True))
    net = nn.Sequential(nn.Linear(7, 9), neuron, nn.Linear(9, 3)).double()
    losses = [fastsnn.online.loss(out, y, 3) for out in net(x)]
    task = torch.autograd.grad(sum(losses), [*net.parameters()], retain_graph=True)
    both = torch.autograd.grad(sum(losses) + regularisation(net), [*net.parameters()])
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = fastsnn.optim.STGR(torch.optim.SGD(net.parameters(), 0.1), a2=0.0)
    fastsnn.online.train_batch(net, x, y, optimizer, mode="A")
    assert_same([optimizer.state[p]["previous"] for p in net.parameters()], [*task], **CLOSE)
    assert_same(
        [p.detach() for p in net.parameters()], [p - 0.1 * g for p, g in zip(before, both, strict=True)], **CLOSE
    )


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory):
    """Parameters of both processes after some updates under each wrapper, and of one process."""
    folder = tmp_path_factory.mktemp("mpdr")
    ranks = [subprocess.Popen([sys.executable, WORKER, folder, rank]) for rank in ("0", "1")]
    assert [rank.wait(300) for rank in ranks] == [0, 0]
    return [torch.load(folder / f"trained{rank}") for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize("propagate", [False, True], ids=["kept", "propagated"])
@pytest.mark.parametrize("mode", ["O", "A"])
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp2"])
def test_two_processes_with_stgr_train_as_one(trained_by_two, wrapper, mode, propagate):
    """A second backward of a forward, which DistributedDataParallel does not average, and fsdp2 must see."""
    first, second = (found[wrapper, mode, propagate] for found in trained_by_two)
    assert_same(first, second)
    assert_same(first, trained_by_two[0]["one", mode, propagate], rtol=1e-9, atol=1e-12)


def test_bptt_needs_propagate():
    with pytest.raises(ValueError, match="propagate=True"):
        fastsnn.LIF(mpdr=MPDR(**TARGET))(torch.randn(7))


def test_bptt_in_steps_is_the_sequence():
    x, grads = current(4, 3, 7, dtype=torch.float64), []
    for mode in ("s", "m"):
        layer = fastsnn.LIF(step_mode=mode, mpdr=MPDR(**TARGET, propagate=True))
        leaf = x.clone().requires_grad_()
        out = layer(leaf) if mode == "m" else torch.stack([layer(x_t) for x_t in leaf])
        grads.append(torch.autograd.grad(out.square().sum(), leaf)[0])
    assert_same(grads[1], grads[0], rtol=1e-12, atol=1e-14)


def test_the_gradient_of_a_sequence_through_time_is_autograds():
    x = current(4, 3, 7, dtype=torch.float64)
    layer = fastsnn.LIF(step_mode="m", v_threshold=1e9, mpdr=MPDR(**TARGET, propagate=True))
    leaf = x.clone().requires_grad_()
    layer(leaf)
    (found,) = torch.autograd.grad(regularisation(layer), leaf)
    v, total = 0.0, 0.0
    for x_t in leaf:
        v = v + (x_t - v) / 2
        total = total + penalty(v)
    assert_same(found, torch.autograd.grad(total, leaf)[0], rtol=1e-9, atol=1e-12)


def test_loss_and_z_score_of_the_last_call():
    layer = fastsnn.LIF.for_rule("sltt", mpdr=MPDR(**TARGET, propagate=True))
    assert layer.moments is layer.mpdr_loss is layer.z_score is None
    x = torch.randn(3, 4, 50, dtype=torch.float64)
    v = torch.zeros(4, 50, dtype=torch.float64)
    for x_t in x:
        layer(x_t)
        u = 0.5 * v + x_t
        v = torch.where(u >= 1, u - 1, u)
        assert_same(layer.mpdr_loss * TARGET["weight"], penalty(u).unsqueeze(0), rtol=1e-12)
        assert_same(layer.z_score, ((1 - u.mean()) / u.std(correction=0)).unsqueeze(0), rtol=1e-12)
    layer.step_mode = "m"
    layer.reset()
    layer.eval()(x)
    assert layer.mpdr_loss.shape == layer.z_score.shape == (3,)
    layer.reset()
    assert layer.moments is None


def test_weight_0_changes_no_gradient():
    x = images()
    found = trained(network("ottt", MPDR(0.0, 1.0, 0.0)), x)
    assert_same(found, trained(network("ottt", None), x))


def test_torch_compile_refuses_what_needs_autograds_nodes():
    layer = torch.compile(fastsnn.LIF.for_rule("sltt", mpdr=MPDR(**TARGET)), fullgraph=True)
    with pytest.raises(
        Exception, match=in_a_graph(r"propagate=False.*pass propagate=True, or train outside of torch\.compile")
    ):
        layer(torch.randn(7))
    x = torch.randn(7)
    assert_same(layer.eval()(x), (x >= 1).float())


def test_bad_argument():
    with pytest.raises(TypeError, match="MPDR"):
        fastsnn.LIF(mpdr=0.1)


FORGOTTEN = pytest.warns(UserWarning, match=r"mpdr did nothing.*fastsnn\.online\.regularisation\(net\)")


@pytest.mark.parametrize("rule", ["sltt", "bptt"])
def test_a_term_that_no_loss_has_is_said_at_the_next_step(rule):
    """Without it the network trains as if it had no MPDR."""
    net, x = network(rule, MPDR(**TARGET, propagate=True)), images(2)
    plain(net(x[0])).square().sum().backward()
    with FORGOTTEN:
        net(x[1])


@pytest.mark.parametrize("end", [fastsnn.reset, fastsnn.detach])
def test_a_term_that_no_loss_has_is_said_at_the_end_too(end):
    net = network("ottt", MPDR(**TARGET))
    plain(net(images(1)[0])).square().sum().backward()
    with FORGOTTEN:
        end(net)


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_of_terms_in_the_loss_nor_outside_of_training():
    net, x = network("ottt", MPDR(**TARGET)), images(3)
    trained(net, x)
    (plain(net(x[0])).sum() + sum(layer.mpdr_loss.sum() for layer in net if isinstance(layer, fastsnn.LIF))).backward()
    fastsnn.reset(net)
    fastsnn.reset(copy.deepcopy(net))
    with torch.no_grad():
        net(x[0])
    net(x[1])  # without a backward
    net.eval()(x[1])
    fastsnn.reset(net)
