"""A batch that raises leaves what the next one starts from as it was."""

import copy

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.online import MPDR, Trainer
from fastsnn.optim import STGR

T = 3


def around(*middle):
    return nn.Sequential(nn.Linear(5, 6), *middle, nn.Linear(6, 3))


NETWORKS = {
    **{rule: lambda rule=rule: around(fastsnn.LIF.for_rule(rule, dropout=0.3)) for rule in fastsnn.names.RULES},
    "mpdr": lambda: around(fastsnn.LIF.for_rule("sltt", mpdr=MPDR(0.0, 1.0, 0.1))),
    "osr": lambda: around(fastsnn.OSR1d(6, T), fastsnn.LIF.for_rule("ottt")),
    "osr fused": lambda: around(fastsnn.OSRLIF.for_rule("ottt", 6, T)),
    "osr and ots": lambda: around(fastsnn.OSRLIF.for_rule("ottt", 6, T, threshold="ots")),
    "batch norm": lambda: around(nn.BatchNorm1d(6), fastsnn.LIF.for_rule("sltt")),
    "ots": lambda: around(fastsnn.LIF.for_rule("ottt", threshold="ots", fixed_threshold=True)),
    "empf": lambda: around(fastsnn.EMPF(T)),
    "empf with norm": lambda: around(fastsnn.EMPF(T, "II", channels=6)),
    "weight standardisation": lambda: nn.Sequential(
        fastsnn.WSLinear(5, 6), fastsnn.LIF.for_rule("ottt"), nn.Linear(6, 3)
    ),
}
# running statistics take what a layer saw before the error, as torch's batch norm does
STATISTICS = ("osr", "osr fused", "osr and ots", "batch norm", "ots", "empf with norm")
OPTIMIZERS = {
    "sgd": lambda net: torch.optim.SGD(net.parameters(), 0.1, momentum=0.9),
    "stgr": lambda net: STGR(torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)),
    "adam": lambda net: torch.optim.Adam(net.parameters(), 0.01),
}


class Interrupted(KeyboardInterrupt):
    pass


def trainer_of(name, optimizer):
    torch.manual_seed(0)
    net = NETWORKS[name]()
    return Trainer(net, OPTIMIZERS[optimizer](net), mode="A" if fastsnn.names.through_time(name) else "O")


def batch(trainer, seed):
    torch.manual_seed(seed)
    trainer.train_batch(2 * torch.rand(T, 4, 5), torch.tensor([0, 1, 2, 0]))


def raising(trainer, seed):
    """A batch whose last layer raises in its first step, after all others have run."""

    def interrupt(module, given):
        raise Interrupted

    handle = trainer.net[-1].register_forward_pre_hook(interrupt)
    with pytest.raises(Interrupted):
        batch(trainer, seed)
    handle.remove()


def flat(state):
    if isinstance(state, dict):
        return [item for key in sorted(state, key=str) for item in (key, *flat(state[key]))]
    return [item for value in state for item in flat(value)] if isinstance(state, (list, tuple)) else [state]


def same(a, b):
    pairs = list(zip(flat(a), flat(b), strict=True))
    return all(torch.allclose(x, y, 0, 0, True) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_weight_and_no_momentum_has_moved(name):
    trainer = trainer_of(name, "sgd")
    batch(trainer, 1)
    weights = [p.detach().clone() for p in trainer.net.parameters()]
    momenta = copy.deepcopy(trainer.optimizer.state_dict())
    raising(trainer, 2)
    assert same([*trainer.net.parameters()], weights)
    assert same(trainer.optimizer.state_dict(), momenta)
    assert trainer.net.training


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in STATISTICS])
def test_training_goes_on_as_if_the_batch_had_not_been(name, optimizer):
    disturbed, undisturbed = (trainer_of(name, optimizer) for _ in range(2))
    for trainer in (disturbed, undisturbed):
        batch(trainer, 1)
    raising(disturbed, 2)
    for trainer in (disturbed, undisturbed):
        batch(trainer, 3)
    assert same(disturbed.state_dict(), undisturbed.state_dict())


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "batch norm"])
def test_a_call_that_is_refused_moves_nothing(name):
    trainer = trainer_of(name, "sgd")
    batch(trainer, 1)
    net = trainer.net
    net(torch.rand(4, 5))
    before, kept = trainer.state_dict()["net"], fastsnn.states(net)
    before = {key: value.clone() for key, value in before.items()}
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        net[1](torch.rand(4, 7, 2))
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        net[1](torch.ones(4, 6, dtype=torch.int32))
    assert same(net.state_dict(), before)
    assert same(fastsnn.states(net), kept)
