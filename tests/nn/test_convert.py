"""convert_batchnorm and fold: the same function, or a refusal."""

import copy

import pytest
import torch
from spikingjelly.activation_based import layer as sj
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel, update_bn

import fastsnn
from fastsnn.nn.osr import OSR

from ..cases import assert_same

WITH_FACTORS = {
    "linear": lambda: nn.Linear(3, 4),
    "ws-linear": lambda: fastsnn.WSLinear(3, 4),
    "binary-linear": lambda: fastsnn.BinaryLinear(3, 4),
    "sign-linear": lambda: fastsnn.BinaryLinear(3, 4, scale=False),
    "sign-linear-no_bias": lambda: fastsnn.BinaryLinear(3, 4, scale=False, bias=False),
    "spectral-linear": lambda: parametrizations.spectral_norm(nn.Linear(3, 4)),
    "orthogonal-binary": lambda: parametrizations.weight_norm(fastsnn.BinaryLinear(3, 4)),
    "conv": lambda: nn.Conv2d(3, 4, 3),
    "ws-conv": lambda: fastsnn.WSConv2d(3, 4, 3, stride=2, padding=1, padding_mode="circular"),
    "ws-conv-groups": lambda: fastsnn.WSConv2d(6, 4, 3, groups=2, dilation=2, padding="same", bias=False),
    "binary-conv": lambda: fastsnn.BinaryConv2d(3, 4, 3),
    "sign-conv": lambda: fastsnn.BinaryConv2d(3, 4, 3, scale=False),
    "weight_norm-conv": lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
}


def stirred(norm):
    nn.init.uniform_(norm.weight, -2, 2)
    nn.init.uniform_(norm.bias, -2, 2)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    return norm.eval()


@pytest.mark.parametrize("name", WITH_FACTORS)
def test_fold_is_the_same_function(name):
    synapse = WITH_FACTORS[name]().double().eval()
    if hasattr(synapse, "gain"):
        nn.init.uniform_(synapse.gain, 0.5, 2)
    linear = "linear" in name or "orthogonal" in name
    norm = stirred((fastsnn.OSR1d if linear else fastsnn.OSR2d)(4, 2).double())
    x = (
        torch.randn(2, 3, dtype=torch.float64)
        if linear
        else torch.randn(2, getattr(synapse, "in_channels", 3), 7, 7).double()
    )
    before = copy.deepcopy(synapse.state_dict())
    folded = fastsnn.fold(synapse, norm)
    assert_same(folded(x), norm(synapse(x)), rtol=1e-9, atol=1e-9)
    assert_same(synapse.state_dict(), before)
    assert isinstance(folded, type(synapse)) == (name in ("linear", "conv", "binary-linear", "binary-conv"))


class Own(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class OwnWeight(fastsnn.BinaryLinear):
    def binary_weight(self):
        return 3 * super().binary_weight()


def pruned():
    layer = nn.Linear(3, 4)
    prune.random_unstructured(layer, "weight", 0.5)
    return layer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Own(3, 4), "synapse is Own"),
        (lambda: OwnWeight(3, 4), "synapse is OwnWeight"),
        (lambda: sj.Linear(3, 4), "not of a class derived from them"),
        (lambda: nn.Bilinear(3, 3, 4), "synapse is Bilinear"),
        (pruned, "forward hooks may change"),
        (lambda: nn.utils.weight_norm(nn.Linear(3, 4)), "forward hooks may change"),
    ],
    ids=["forward", "weight", "spikingjelly", "bilinear", "pruned", "old weight_norm"],
)
def test_fold_of_what_it_does_not_know_raises(make, message):
    with pytest.raises(TypeError, match=message):
        fastsnn.fold(make().eval(), fastsnn.OSR1d(4, 2).eval())


def test_a_norm_that_is_used_twice_stays_one():
    norm = nn.BatchNorm1d(6)
    net = nn.Sequential(nn.Linear(4, 6), norm, nn.Linear(6, 6), norm, nn.Sequential(norm, nn.Identity()))
    net.again = norm
    assert fastsnn.convert_batchnorm(net, 2) is net
    assert type(net[1]) is fastsnn.OSR1d
    assert net[1] is net[3] is net[4][0] is net.again


def test_sync_batch_norm():
    net = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3)))
    net[0].running_mean.uniform_()
    x, converted = torch.randn(2, 3, 4, 4), fastsnn.convert_batchnorm(copy.deepcopy(net), 2)
    assert isinstance(converted[0], OSR)
    assert_same(converted.eval()(x), net.eval()(x), rtol=1e-5, atol=1e-5)


def test_lazy_norms_are_converted_once_they_know_their_channels():
    net = nn.Sequential(nn.LazyBatchNorm2d())
    with pytest.raises(ValueError, match=r"0 is LazyBatchNorm2d.*run a batch through the network first"):
        fastsnn.convert_batchnorm(net, 2)
    net(torch.randn(2, 3, 4, 4))
    assert isinstance(fastsnn.convert_batchnorm(net, 2)[0], fastsnn.OSR2d)


def hooked():
    norm = nn.BatchNorm1d(3)
    norm.register_forward_hook(lambda *_: None)
    return norm


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: sj.BatchNorm2d(3), TypeError, r"1\.0 is BatchNorm2d, derived from a batch norm.*would be lost"),
        (lambda: Derived(3), TypeError, "Derived"),
        (lambda: nn.BatchNorm1d(3, track_running_stats=False), ValueError, "tracks no running statistics"),
        (hooked, ValueError, "forward hooks, which would be lost"),
    ],
    ids=["spikingjelly", "derived", "untracked", "hooked"],
)
def test_norms_that_cannot_be_converted_raise_and_nothing_changes(make, error, message):
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(make()))
    before = [*net.modules()]
    with pytest.raises(error, match=message):
        fastsnn.convert_batchnorm(net, 2)
    assert [*net.modules()] == before


class Derived(nn.BatchNorm1d):
    pass


def test_converted_networks_convert_again_as_they_are():
    net = fastsnn.convert_batchnorm(nn.Sequential(nn.BatchNorm1d(3)), 2)
    norm = net[0]
    assert fastsnn.convert_batchnorm(net, 4)[0] is norm


# torch.optim.swa_utils.update_bn


class Sequences(nn.Module):
    """All steps of a sequence [N, T, C] through a norm."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        fastsnn.reset(self)
        return torch.stack([self.norm(x_t) for x_t in x.unbind(1)], 1)


@pytest.mark.parametrize("steps", [1, 3])
def test_update_bn_gives_the_mean_over_sequences(steps):
    torch.manual_seed(0)
    net = AveragedModel(Sequences(fastsnn.OSR1d(4, steps))).double()
    norm = net.module.norm
    norm.running_mean.fill_(9)
    data = [torch.randn(64, steps, 4, dtype=torch.float64) * (1 + i) + 3 + i for i in range(5)]
    update_bn(data, net)
    whole = [x.flatten(0, 1) for x in data]
    assert_same(norm.running_mean, torch.stack([x.mean(0) for x in whole]).mean(0), rtol=1e-12)
    assert_same(norm.running_var, torch.stack([x.var(0, unbiased=False) for x in whole]).mean(0), rtol=1e-12)
    assert norm.momentum == 0.9
    assert norm.num_batches_tracked == 5


def test_update_bn_counts_a_sequence_that_it_does_not_end():
    norm = fastsnn.OSR1d(4, 6)
    update_bn([torch.randn(64, 4) + 3 for _ in range(8)], norm)
    assert_same(norm.running_mean, torch.full((4,), 3.0), atol=0.2)
    assert norm.state.steps == 0


def test_update_bn_forgets_what_was():
    norm = fastsnn.OSR1d(4, 2)
    norm(torch.full((3, 4), 100.0) + torch.randn(3, 4))
    update_bn([torch.randn(64, 4) + 3], norm)
    assert_same(norm.running_mean, torch.full((4,), 3.0), atol=0.5)


def test_osr_is_a_batch_norm_to_tools_but_not_to_sync_batch_norm():
    net = nn.Sequential(fastsnn.OSR1d(4, 2))
    assert isinstance(net[0], nn.modules.batchnorm._BatchNorm)
    with pytest.raises(AttributeError, match="affine"):
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
    net[0].running_mean.fill_(3)
    net[0].reset_parameters()
    assert not net[0].running_mean.any()


@pytest.mark.parametrize("momentum", [-0.1, 1.5])
def test_momentum_is_checked_when_it_is_assigned(momentum):
    norm = fastsnn.OSR1d(4, 2)
    with pytest.raises(ValueError, match=r"momentum is .*must be in \[0, 1\]"):
        norm.momentum = momentum
    assert norm.momentum == 0.9
