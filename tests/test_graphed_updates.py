"""`Trainer(graph=True)`: its logic with a stand-in for a device. tests/gpu runs it on one, test_cpu_graphs.py here."""

import copy
import warnings

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn import online
from fastsnn.online import cuda_graph, graph

T = 4


class Rehearsed:
    """A capture leaves everything as it was and a replay runs the captured call again, into the same outputs."""

    RUNS = False
    captures = 0
    waits_at = None

    def __init__(self, net, optimizer):
        self.net, self.optimizer = net, optimizer

    @staticmethod
    def aside(call):
        return call()

    def waits(self, call):
        return call(), self.waits_at

    def pool(self):
        return "a pool"

    obstacle = staticmethod(cuda_graph.obstacle)

    def capture(self, run, x, y, net, pool):
        assert pool == "a pool"
        self.captures += 1
        before = graph.Before(self.net, self.optimizer)
        x, y = [x_t.clone() for x_t in x], y.clone()
        out = run(x, y)
        before.restore()

        def replay(x_given, y_given):
            for kept, given in zip((*x, y), (*x_given, y_given), strict=True):
                kept.copy_(given)
            for mine, now in zip(out, run(x, y), strict=True):
                mine.copy_(now)
            return out

        return replay, None, frozenset()


def network(dropout=0.3):
    torch.manual_seed(0)
    neuron = fastsnn.LIF.for_rule("ottt", dropout=dropout)
    return nn.Sequential(nn.Linear(8, 11), nn.BatchNorm1d(11), neuron, nn.Dropout(0.2), nn.Linear(11, 4))


def batches(count, n=6):
    # 8 features: every step starts at 16 bytes, which MKL's products depend on with some processors
    rng = torch.Generator().manual_seed(1)
    return [(torch.randn(T, n, 8, generator=rng), torch.randint(4, (n,), generator=rng)) for _ in range(count)]


def trainers(make=lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), **options):
    """An eager trainer and one with graphs, and the stand-in of the latter."""
    eager, net = network(), network()
    optimizer = make(net.parameters())
    graphed = online.Trainer(net, optimizer, graph=True, **options)
    device = Rehearsed(net, optimizer)
    graphed._graphs.devices = {"cpu": device}
    return online.Trainer(eager, make(eager.parameters()), **options), graphed, device


def train(trainer, data, before=lambda i, trainer: None):
    torch.manual_seed(2)
    results = []
    for i, batch in enumerate(data):
        before(i, trainer)
        results.append(trainer.train_batch(*batch))
    return results


def assert_equal_weights(a, b):
    for (name, left), right in zip(a.net.state_dict().items(), b.net.state_dict().values(), strict=True):
        assert torch.equal(left, right), name


@pytest.mark.parametrize("mode", ["O", "A"])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_fifty_graphed_updates_are_the_eager_ones(mode, clip):
    eager, graphed, device = trainers(mode=mode, clip=clip)
    assert train(eager, batches(50)) == train(graphed, batches(50))
    assert_equal_weights(eager, graphed)
    assert device.captures == 1
    assert graphed.graph_refusal is None


def test_adam_with_its_state_on_the_device():
    eager, graphed, device = trainers(lambda p: torch.optim.Adam(p, 1e-2, capturable=True, foreach=False))
    # the CPU has no capturable Adam: its groups say so, its step does not look
    for trainer in (eager, graphed):
        trainer.optimizer.param_groups[0]["capturable"] = None
    train(eager, batches(8)), train(graphed, batches(8))
    assert_equal_weights(eager, graphed)
    assert device.captures == 1


def test_every_shape_of_batch_has_a_graph_of_its_own():
    eager, graphed, device = trainers()
    data = [batch for pair in zip(batches(6), batches(6, n=3), strict=True) for batch in pair]
    train(eager, data), train(graphed, data)
    assert_equal_weights(eager, graphed)
    assert device.captures == 2


def test_another_learning_rate_captures_anew():
    def halve(i, trainer):
        if i % 4 == 0:
            trainer.optimizer.param_groups[0]["lr"] /= 2

    eager, graphed, device = trainers()
    train(eager, batches(20), halve), train(graphed, batches(20), halve)
    assert_equal_weights(eager, graphed)
    assert device.captures == 5


def test_a_learning_rate_that_always_changes_runs_eagerly_and_says_why():
    def decay(i, trainer):
        trainer.optimizer.param_groups[0]["lr"] *= 0.99

    eager, graphed, device = trainers()
    train(eager, batches(20), decay)
    with pytest.warns(RuntimeWarning, match="change at every batch"):
        train(graphed, batches(20), decay)
    assert_equal_weights(eager, graphed)
    assert device.captures == 1 + graph.ANEW


def test_a_batch_is_copied_into_the_graph():
    _, graphed, _ = trainers()
    data = batches(6)
    kept = copy.deepcopy(data)
    train(graphed, data)
    for (x, y), (x_before, y_before) in zip(data, kept, strict=True):
        assert torch.equal(x, x_before)
        assert torch.equal(y, y_before)


def test_steps_may_be_a_list():
    eager, graphed, _ = trainers()
    data = [(list(x), y) for x, y in batches(6)]
    train(eager, data), train(graphed, data)
    assert_equal_weights(eager, graphed)


@pytest.mark.parametrize(
    ("make", "options", "why"),
    [
        (lambda p: torch.optim.SGD(p, 0.1), {"mode": "A", "backward_steps": 1}, "draws other steps"),
        (lambda p: torch.optim.Adam(p, 0.1), {}, "capturable=True"),
    ],
)
def test_what_no_graph_can_hold_runs_eagerly_and_says_why(make, options, why):
    eager, graphed, device = trainers(make, **options)
    train(eager, batches(5))
    with pytest.warns(RuntimeWarning, match=why) as seen:
        train(graphed, batches(5))
    assert len(seen) == 1
    assert why in graphed.graph_refusal
    assert_equal_weights(eager, graphed)
    assert device.captures == 0


def test_an_update_that_waits_for_the_device_is_not_captured():
    eager, graphed, device = trainers()
    device.waits_at = "layer.py, line 7"
    train(eager, batches(6))
    with pytest.warns(RuntimeWarning, match="waits for the device \\(layer.py, line 7\\)"):
        train(graphed, batches(6))
    assert_equal_weights(eager, graphed)
    assert device.captures == 0


def test_a_capture_that_fails_falls_back_with_its_first_error():
    eager, graphed, device = trainers()

    def capture(run, x, y, net, pool):
        try:
            raise ValueError("operation not permitted")
        except ValueError:
            raise RuntimeError("failed due to a previous error")  # noqa: B904

    device.capture = capture
    train(eager, batches(6))
    with pytest.warns(RuntimeWarning, match="RuntimeError: operation not permitted"):
        train(graphed, batches(6))
    assert_equal_weights(eager, graphed)


def test_a_buffer_that_is_replaced_is_named():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen = self.seen + 1
            return x

    _, graphed, _ = trainers()
    graphed.net.append(Counts())
    with pytest.warns(RuntimeWarning, match="5.seen is another tensor after every batch"):
        train(graphed, batches(5))


def test_a_replay_is_seen_by_caches_of_the_weights():
    _, graphed, _ = trainers()
    train(graphed, batches(4))
    versions = [p._version for p in graphed.net.parameters()]

    def replay(x, y):
        return torch.zeros(T), torch.zeros(1)

    next(iter(graphed._graphs._graphs.values())).replay = replay
    train(graphed, batches(1))
    assert all(p._version > before for p, before in zip(graphed.net.parameters(), versions, strict=True))


def test_another_device_says_what_is_needed():
    net = network().to("meta")
    trainer = online.Trainer(net, torch.optim.SGD(net.parameters(), 0.1), graph=True)
    x, y = batches(1)[0]
    with pytest.warns(RuntimeWarning, match="must be on the CPU or one CUDA device and are on cpu, meta"):
        assert trainer._graphs.run(lambda x, y: "ran", x, y, {}) == "ran"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trainer._graphs.run(lambda x, y: "ran", x, y, {}) == "ran"
