"""No host in the loop: what a training batch on a device reads back and copies there. test_fake_device.py runs this, in
a process that has the fake device."""

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn import online
from fastsnn.online.training import update

from ..cases import ONLINE, assert_same
from . import fake_device

T, N = 4, 6
LAYERS = {
    **{f"lif-{rule}": lambda rule=rule: fastsnn.LIF.for_rule(rule, dropout=0.2) for rule in ("bptt", *ONLINE)},
    "osr": lambda: nn.Sequential(fastsnn.OSR1d(8, T, max_ratio=None), fastsnn.LIF.for_rule("ottt")),
    "osr-fallback": lambda: nn.Sequential(fastsnn.OSR1d(8, T), fastsnn.LIF.for_rule("ottt")),
    "osr-strict": lambda: nn.Sequential(fastsnn.OSR1d(8, T, strict=True), fastsnn.LIF.for_rule("sltt")),
    **{f"osrlif-{rule}": lambda rule=rule: fastsnn.OSRLIF.for_rule(rule, 8, T) for rule in ONLINE},
    "osrlif-ots": lambda: fastsnn.OSRLIF.for_rule("ottt", 8, T, threshold="ots"),
    "osrlif-strict": lambda: fastsnn.OSRLIF.for_rule("ottt", 8, T, strict=True),
    "ots": lambda: fastsnn.LIF.for_rule("ottt", threshold="ots"),
    "mpdr": lambda: fastsnn.LIF.for_rule("sltt", mpdr=online.MPDR(0.0, 1.0, 0.1)),
    "mpdr-propagate": lambda: fastsnn.LIF.for_rule("sltt", mpdr=online.MPDR(0.0, 1.0, 0.1, propagate=True)),
    "empf-I": lambda: fastsnn.EMPF(T),
    "empf-II": lambda: fastsnn.EMPF(T, "II", 8),
}
SYNAPSES = {"plain": nn.Linear, "ws": fastsnn.WSLinear}


def network(layer, synapse="plain", device=fake_device.NAME):
    torch.manual_seed(3)
    make = SYNAPSES[synapse]
    return nn.Sequential(make(5, 8), LAYERS[layer](), make(8, 3)).to(device)


def batch(device=fake_device.NAME):
    rng = torch.Generator().manual_seed(4)
    x, y = torch.randn(T, N, 5, generator=rng), torch.randint(3, (N,), generator=rng)
    return x.to(device), y.to(device)


def spent(call):
    """What call() costs, after a first one that may prepare things."""
    call()
    before = fake_device.counts()
    call()
    return fake_device.Counts(*(now - then for now, then in zip(fake_device.counts(), before, strict=True)))


def modes(layer):
    return ("A",) if layer == "lif-bptt" else ("O", "A")


EVERY = pytest.mark.parametrize(("layer", "mode"), [(layer, mode) for layer in LAYERS for mode in modes(layer)])


@EVERY
@pytest.mark.parametrize("synapse", SYNAPSES)
def test_an_update_reads_nothing_and_copies_nothing(layer, mode, synapse):
    net, (x, y) = network(layer, synapse), batch()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    options = {"mode": mode, "loss": online.loss, "clip": None}
    cost = spent(lambda: update(net, x, y, optimizer, **options))
    strict = "strict" in layer  # told after the last step
    assert (cost.reads, cost.copies) == (strict, 0)


@EVERY
def test_a_batch_reads_once(layer, mode):
    net, (x, y) = network(layer), batch()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    cost = spent(lambda: online.train_batch(net, x, y, optimizer, mode=mode))
    assert (cost.reads, cost.copies) == (1 + ("strict" in layer), 0)
    cost = spent(lambda: online.evaluate(net, [(x, y)] * 3))
    assert (cost.reads, cost.copies) == (1, 0)


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if not layer.startswith("lif")])
@pytest.mark.parametrize("mode", ["O", "A"])
def test_the_weights_are_those_of_the_cpu(layer, mode):
    trained = []
    for device in ("cpu", fake_device.NAME):
        net = network(layer, "ws", device)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        results = [online.train_batch(net, *batch(device), optimizer, mode=mode).loss for _ in range(3)]
        trained.append((torch.tensor(results), *(value.cpu() for value in net.state_dict().values())))
    assert_same(trained[1], trained[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", ["osr-strict", "osrlif-strict"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_strict_norm_keeps_a_bad_step_out_and_names_it(layer, bad):
    net, (x, y) = network(layer), batch()
    x[2, 1, 0] = bad
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises(FloatingPointError, match="step 3 of"):
        online.train_batch(net, x, y, optimizer)
    assert all(bool(value.isfinite().all()) for value in net.state_dict().values())
    x[2, 1, 0] = 0.0
    assert online.train_batch(net, x, y, optimizer).samples == N


def test_a_read_is_counted():
    x = torch.ones(3, device=fake_device.NAME)
    for read in (lambda: float(x.sum()), lambda: bool((x > 0).any()), lambda: torch.equal(x, x), x.tolist, x.nonzero):
        assert spent(read).reads == 1
    assert spent(lambda: x.new_tensor(1.0)).copies == 1
    assert spent(lambda: x + 1)[:3] == (0, 0, 1)


def test_tensors_of_two_devices_do_not_mix():
    with pytest.raises(RuntimeError, match="fake"):
        torch.ones(3, device=fake_device.NAME) + torch.ones(3)
