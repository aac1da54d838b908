"""`Trainer(graph=True)` on the CPU: the numbers of the layers bit for bit, and a reason wherever there is no graph."""

import copy
import inspect
import random
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

import fastsnn
from fastsnn import online
from fastsnn.models.registry import MODELS
from fastsnn.ops.mpdr import MPDR
from fastsnn.optim import STGR
from fastsnn.rules import RULES

from .models.test_networks import inputs, tiny
from .test_graphed_updates import T, batches, train

FEATURES, CLASSES = 8, 4
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def network(rule="ottt", **options):
    torch.manual_seed(0)
    fire = partial(fastsnn.LIF.for_rule, rule, **options)
    first = [nn.Linear(FEATURES, 11), nn.BatchNorm1d(11), fire(), nn.Dropout(0.2)]
    return nn.Sequential(*first, fastsnn.WSLinear(11, 9), fire(), nn.Linear(9, CLASSES))


def both(net, data, make=SGD, before=lambda i, trainer: None, **options):
    """A trainer with graphs after some batches, which had the results of one without and has its weights."""
    eager = copy.deepcopy(net)
    trainer = online.Trainer(net, make(net.parameters()), graph=True, **options)
    expected = online.Trainer(eager, make(eager.parameters()), **options)
    assert train(expected, data, before) == train(trainer, data, before)
    for (name, mine), right in zip(net.state_dict().items(), eager.state_dict().values(), strict=True):
        assert torch.equal(mine, right), name
    mine, right = (pytree.tree_leaves(each.optimizer.state_dict()) for each in (trainer, expected))
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(mine, right, strict=True))
    return trainer


def assert_graphed(trainer, captures=1):
    assert trainer.graph_refusal is None
    graphs = trainer._graphs._graphs.values()
    assert sum(found.replay is not None and found.checked for found in graphs) == captures


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="graph=True runs eagerly")
        yield


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_and_mode(rule):
    for mode in ("O", "A") if RULES[rule].online else ("A",):
        assert_graphed(both(network(rule), batches(8), mode=mode))


class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x):
        self.calls.append("a step")
        return x


def test_layers_are_called_for_no_batch_after_the_first_replay():
    net = network()
    net.insert(0, Calls())
    trainer = online.Trainer(net, SGD(net.parameters()), graph=True)
    train(trainer, batches(9))
    assert len(net[0].calls) == 5 * T  # three eager, a capture, a comparison


@pytest.mark.parametrize("clip", [None, 0.5])
def test_dropout_of_a_sequence_and_clipping(clip):
    assert_graphed(both(network(dropout=0.3), batches(8), clip=clip))


@pytest.mark.parametrize("mode", ["O", "A"])
def test_mpdr_and_stgr(mode):
    net = network("sltt", mpdr=MPDR(mean=0.2, std=0.8, weight=0.1, propagate=True))
    assert_graphed(both(net, batches(8), lambda p: STGR(SGD(p)), mode=mode))


def test_mpdr_that_does_not_propagate_runs_eagerly():
    net = network("sltt", mpdr=MPDR(mean=0.2, std=0.8, weight=0.1))
    with pytest.warns(RuntimeWarning, match="cannot be captured: RuntimeError: MPDR\\(propagate=False\\)"):
        both(net, batches(8))


@pytest.mark.parametrize(
    "make",
    [
        partial(torch.optim.SGD, lr=torch.tensor(0.1), fused=True),
        partial(torch.optim.SGD, lr=0.1, foreach=True, weight_decay=1e-3),
        partial(torch.optim.AdamW, lr=1e-2, fused=True),
    ],
    ids=["fused", "foreach", "adamw"],
)
def test_optimizers(make):
    assert_graphed(both(network(), batches(8), make))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if not name.endswith("34")])  # those of 18, longer
def test_networks_of_the_papers(name):
    taken = inspect.signature(MODELS[name]).parameters
    options = {"rule": "ottt"} if "rule" in taken else {}
    options |= {"steps": 2} if "steps" in taken else {}
    x, y = inputs(name, 2)
    mode = "O" if options.get("rule") == "ottt" else "A"
    trainer = both(tiny(name, num_classes=5, **options), [(x + i, y) for i in range(6)], SGD, mode=mode)
    assert_graphed(trainer)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["osr", "osr+ots", "bn"])
def test_norms_and_their_statistics(norm):
    x, y = inputs("preact_resnet18", 2)
    net = tiny("preact_resnet18", rule="ottt", norm=norm, num_classes=5)
    assert_graphed(both(net, [(x + i, y) for i in range(6)]))


def test_another_learning_rate_captures_anew():
    def halve(i, trainer):
        if i % 5 == 0:
            trainer.optimizer.param_groups[0]["lr"] /= 2

    assert_graphed(both(network(), batches(14), before=halve))


def test_each_shape_has_a_graph_of_its_own():
    data = [batch for pair in zip(batches(6), batches(6, n=3), strict=True) for batch in pair]
    assert_graphed(both(network(), data), captures=2)


def test_what_is_changed_between_batches_holds():
    """A threshold, an option, a frozen norm, a rate of dropout, other tensors under the optimizer."""

    def change(i, trainer):
        if i == 6:
            trainer.net[2].v_threshold = 0.7
        if i == 12:
            trainer.options["clip"] = 0.1
        if i == 14:
            trainer.net[1].eval()
        if i == 16:
            trainer.net[3].p = 0.6
        if i == 20:
            trainer.optimizer.load_state_dict(copy.deepcopy(trainer.optimizer.state_dict()))
        if i == 22:
            trainer.net[4].weight.data = trainer.net[4].weight.data * 1.5

    assert_graphed(both(network(), batches(26), before=change))


def test_under_autocast_and_a_forced_backend():
    def run():
        return both(network(), batches(8))

    with torch.autocast("cpu", torch.bfloat16):
        assert_graphed(run())
    with fastsnn.use_backend("reference"):
        assert_graphed(run())


def test_a_loss_that_is_not_finite_raises_before_its_update():
    data = batches(8)
    data[7][0][1, 0, 0] = float("nan")
    states, errors = [], []
    for graph in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(FEATURES, CLASSES))
        trainer = online.Trainer(net, SGD(net.parameters()), graph=graph)
        with pytest.raises(FloatingPointError, match=f"step 2 of {T}") as error:
            train(trainer, data)
        errors.append(str(error.value)), states.append(net[0].weight.detach())
    assert errors[0] == errors[1]
    assert torch.equal(*states)
    assert states[0].isfinite().all()


class Means(nn.Module):
    def forward(self, x):
        self.mean = x.detach().mean()
        return x


def test_what_the_last_step_leaves_on_a_layer_is_of_this_batch():
    nets = [network() for _ in range(2)]
    for net in nets:
        net.insert(0, Means())
    trainers = [online.Trainer(net, SGD(net.parameters()), graph=bool(i)) for i, net in enumerate(nets)]
    for x, y in batches(8):
        for trainer, net in zip(trainers, nets, strict=True):
            train(trainer, [(x, y)])
            assert torch.equal(net[0].mean, x[-1].mean())
    assert_graphed(trainers[1])


class Keeps(nn.Module):
    def forward(self, x):
        self.seen = [x]
        return x


def test_what_is_left_in_a_list_keeps_a_network_out_of_graphs():
    net = network()
    net.insert(2, Keeps())
    with pytest.warns(RuntimeWarning, match="2.seen keeps a batch's tensors as list"):
        both(net, batches(8))


def test_other_layers_and_other_tensors_on_them_are_captured_anew():
    class Masked(nn.Module):
        mask = None

        def forward(self, x):
            return x * self.mask

    def change(i, trainer):
        if i in (0, 7):
            trainer.net[0].mask = torch.full((), 0.5 + i)
        if i == 13:
            trainer.net[1] = nn.Tanh()

    net = nn.Sequential(Masked(), nn.ReLU(), *network())
    assert_graphed(both(net, batches(18), before=change))


def test_caches_of_the_weights_ask_again():
    net = network()
    trainer = online.Trainer(net, SGD(net.parameters()), graph=True)
    train(trainer, batches(5))
    versions = [p._version for p in net.parameters()]
    train(trainer, batches(1))
    assert all(p._version > before for p, before in zip(net.parameters(), versions, strict=True))


@pytest.mark.parametrize(
    ("make", "options", "why"),
    [
        (partial(torch.optim.Adam, lr=0.1), {}, "Adam reads its numbers; construct it with fused=True"),
        (partial(torch.optim.Adagrad, lr=0.1), {}, "cannot be captured: RuntimeError: aten._local_scalar_dense"),
        (SGD, {"mode": "A", "backward_steps": 1}, "draws other steps"),
        (SGD, {"loss": lambda o, y, t: F.mse_loss(o, F.one_hot(y, CLASSES).to(o)) / t}, f"reads a value \\({__file__}"),
    ],
    ids=["adam", "adagrad", "backward_steps", "one_hot"],
)
def test_what_reads_values_runs_eagerly_and_says_where(make, options, why):
    with pytest.warns(RuntimeWarning, match=why) as seen:
        trainer = both(network(), batches(8), make, **options)
    assert len([w for w in seen if "graph=True" in str(w.message)]) == 1
    assert trainer.graph_refusal is not None


class Counts(nn.Module):
    """Another factor for every batch."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.factor = 1.0

    def forward(self, x):
        self.calls += 1
        if self.calls % T == 0:
            self.factor *= 0.99
        return x * self.factor


def test_a_layer_that_changes_at_every_batch_runs_eagerly():
    net = network()
    net.insert(0, Counts())
    with pytest.warns(RuntimeWarning, match="or a layer's, change at every batch"):
        both(net, batches(14))


class Reads(nn.Module):
    """A decision that takes its other way for no batch of these."""

    def __init__(self, read):
        super().__init__()
        self.read = read

    def forward(self, x):
        return x * 2 if self.read(x.detach()) > 1e9 else x


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda x: float(x.max()), "aten._local_scalar_dense"),
        (lambda x: x.max().tolist(), "Tensor.tolist"),
        (lambda x: x.numpy().max(), "Tensor.numpy"),
        (lambda x: np.asarray(x).max(), "Tensor.__array__|Tensor.numpy"),
        (lambda x: np.from_dlpack(x).max(), "Tensor.__dlpack__"),
    ],
)
def test_what_decides_by_values_is_found_by_the_capture(read, name):
    net = network()
    net.insert(0, Reads(read))
    with pytest.warns(RuntimeWarning, match=f"({name}).* reads a value \\({__file__}"):
        both(net, batches(8))


class Draws(nn.Module):
    """Another factor for every call, by a generator that torch does not know."""

    def __init__(self):
        super().__init__()
        self.draw = random.Random(0)

    def forward(self, x):
        return x * self.draw.random()


def test_what_decides_behind_torch_is_found_by_the_first_replay():
    net = network()
    net.insert(0, Draws())
    trainer = online.Trainer(net, SGD(net.parameters()), graph=True)
    with pytest.warns(RuntimeWarning, match="other numbers than the layers"):
        train(trainer, batches(8))


def _of_module(net, _):
    net[0].register_forward_hook(lambda *_: None)


def _of_parameter(net, _):
    net[0].weight.register_post_accumulate_grad_hook(lambda p: None)


def _of_optimizer(_, optimizer):
    optimizer.register_step_pre_hook(lambda *_: None)


@pytest.mark.parametrize("register", [_of_module, _of_parameter, _of_optimizer])
def test_hooks_see_every_batch(register):
    net = network()
    trainer = online.Trainer(net, SGD(net.parameters()), graph=True)
    train(trainer, batches(6))
    register(net, trainer.optimizer)
    with pytest.warns(RuntimeWarning, match="hooks, of a module, a parameter or the optimizer, are Python"):
        train(trainer, batches(1))


def test_a_recorder_sees_every_batch():
    net = network()
    trainer = online.Trainer(net, SGD(net.parameters()), graph=True)
    train(trainer, batches(6))
    with pytest.warns(RuntimeWarning, match="hooks"), fastsnn.record(net) as seen:
        train(trainer, batches(2))
    assert [len(rates) for rates in seen.rates.values()] == [T, T]
    assert {tuple(seen) for seen in seen._seen.values()} == {(2 * 6 * 11,) * T, (2 * 6 * 9,) * T}


def test_a_capture_that_fails_in_the_middle_leaves_the_batch_to_the_layers():
    class Third(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if torch._C._len_torch_dispatch_stack() and self.calls % T == 0:
                raise RuntimeError("this layer takes no tracing tensor")
            return x

    net = network()
    net.append(Third())
    with pytest.warns(RuntimeWarning, match="RuntimeError: this layer takes no tracing tensor"):
        both(net, batches(8))
