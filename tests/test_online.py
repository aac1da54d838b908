"""Losses, update modes, random back-propagation and the trainer."""

import copy
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastsnn
from fastsnn import data, online

T = 5


def network(rule="ottt"):
    torch.manual_seed(0)
    neurons = [fastsnn.LIF.for_rule(rule) for _ in range(2)]
    return nn.Sequential(nn.Linear(7, 11), neurons[0], nn.Linear(11, 9), neurons[1], nn.Linear(9, 4)).double()


def batch(n=6):
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(T, n, 7, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 4, (n,), generator=generator)


def sgd(net, lr=0.1):
    return torch.optim.SGD(net.parameters(), lr, momentum=0.9)


def weights(net):
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("c", [0.0, 0.05, 1.0])
def test_loss_is_the_mix_of_spec_2(c):
    logits, y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    squares = ((logits - torch.eye(4, dtype=torch.float64)[y]) ** 2).mean()
    entropy = (torch.logsumexp(logits, 1) - logits[torch.arange(6), y]).mean()
    expected = ((1 - c) * entropy + c * squares) / 6
    torch.testing.assert_close(online.loss(logits, y, 6, c), expected)


def test_tet_loss_pulls_every_output_to_the_level():
    logits, y = torch.randn(6, 4, dtype=torch.float64), torch.zeros(6, dtype=torch.long)
    expected = (0.9 * F.cross_entropy(logits, y) + 0.1 * ((logits - 1) ** 2).mean()) / 4
    torch.testing.assert_close(online.tet_loss(logits, y, 4, 0.1), expected)


@pytest.mark.parametrize("fn", [online.loss, online.tet_loss])
@pytest.mark.parametrize(
    ("steps", "share", "named"), [(0, 0.1, "steps"), (4, -0.1, "mse|weight"), (4, 1.5, "mse|weight")]
)
def test_losses_refuse_bad_numbers(fn, steps, share, named):
    with pytest.raises(ValueError, match=named):
        fn(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), steps, share)


def test_mode_a_is_one_update_with_accumulated_gradients():
    net, by_hand = network(), network()
    x, y = batch()
    online.train_batch(net, x, y, sgd(net), mode="A")
    optimizer = sgd(by_hand)
    for x_t in x:
        online.loss(by_hand(x_t), y, T).backward()
    optimizer.step()
    for a, b in zip(weights(net), weights(by_hand), strict=True):
        assert torch.equal(a, b)


def standardised(rule="ottt", mpdr=None):
    torch.manual_seed(0)
    neuron = fastsnn.LIF.for_rule(rule, mpdr=mpdr)
    layers = [fastsnn.WSLinear(7, 11), neuron, fastsnn.WSLinear(11, 4, factor=2.74)]
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("rule", ["sltt", "ottt", "ndot", "bptt"])
@pytest.mark.parametrize("regularised", [False, True])
def test_mode_a_of_standardised_weights_is_the_sum_of_each_steps_gradient(rule, regularised):
    x, y = batch()
    mpdr = online.MPDR(mean=-0.3, std=0.8, weight=0.3, propagate=rule == "bptt") if regularised else None
    net, other = standardised(rule, mpdr), standardised(rule, mpdr)
    losses = []
    for x_t in x:
        losses.append(online.loss(other(x_t), y, T) + online.regularisation(other))
        if rule != "bptt":
            losses.pop().backward()
    if losses:
        sum(losses).backward()
    sgd(other).step()
    online.train_batch(net, x, y, sgd(net), mode="A")
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("mode", "times"), [("A", 1), ("O", T)])
def test_a_standardisation_has_a_gradient_an_update(mode, times):
    from fastsnn.ops import standardize as op

    net, counted = standardised(), mock.Mock(wraps=op.Standardize.backward)
    several = mock.patch.object(op, "gradient", wraps=op.gradient)
    with several as gradient, mock.patch.object(op.Standardize, "backward", counted):
        online.train_batch(net, *batch(), sgd(net), mode=mode)
    assert gradient.call_count + counted.call_count == 2 * times  # layers


def test_processes_that_average_see_every_steps_gradient():
    net, other = standardised(), standardised()
    grouped = mock.patch("torch.distributed.is_initialized", return_value=True)
    with grouped, mock.patch("fastsnn.ops.standardize.gradient") as gradient:
        online.train_batch(net, *batch(), sgd(net), mode="A")
    gradient.assert_not_called()
    online.train_batch(other, *batch(), sgd(other), mode="A")
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_mode_o_updates_at_every_step():
    net, by_hand = network(), network()
    x, y = batch()
    online.train_batch(net, x, y, sgd(net), mode="O")
    optimizer = sgd(by_hand)
    for x_t in x:
        optimizer.zero_grad()
        online.loss(by_hand(x_t), y, T).backward()
        optimizer.step()
    for a, b in zip(weights(net), weights(by_hand), strict=True):
        assert torch.equal(a, b)


def test_bptt_is_one_backward_through_all_steps():
    net, by_hand = network("bptt"), network("bptt")
    x, y = batch()
    online.train_batch(net, x, y, sgd(net), mode="A")
    optimizer = sgd(by_hand)
    sum(online.loss(by_hand(x_t), y, T) for x_t in x).backward()
    optimizer.step()
    for a, b in zip(weights(net), weights(by_hand), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("k", [1, 3])
def test_random_back_propagation_keeps_k_graphs(k):
    net, by_hand = network(), network()
    x, y = batch()
    online.train_batch(net, x, y, sgd(net), mode="A", backward_steps=k, generator=torch.Generator().manual_seed(3))
    chosen = set(torch.randperm(T, generator=torch.Generator().manual_seed(3))[:k].tolist())
    optimizer = sgd(by_hand)
    for t, x_t in enumerate(x):
        with torch.set_grad_enabled(t in chosen):
            loss = online.loss(by_hand(x_t), y, T)
        if t in chosen:
            loss.backward()
    optimizer.step()
    assert len(chosen) == k
    for a, b in zip(weights(net), weights(by_hand), strict=True):
        assert torch.equal(a, b)


def test_all_steps_drawn_is_no_random_back_propagation():
    net, plain = network(), network()
    x, y = batch()
    online.train_batch(net, x, y, sgd(net), mode="A", backward_steps=T)
    online.train_batch(plain, x, y, sgd(plain), mode="A")
    for a, b in zip(weights(net), weights(plain), strict=True):
        assert torch.equal(a, b)


def test_clip_bounds_the_update():
    net = network()
    before = weights(net)
    x, y = batch()
    online.train_batch(net, x, y, torch.optim.SGD(net.parameters(), 1.0), mode="A", clip=1e-3)
    moved = torch.cat([(a - b).flatten() for a, b in zip(weights(net), before, strict=True)]).norm()
    assert 0 < moved <= 1e-3 * (1 + 1e-6)


def test_result_counts_and_state_is_reset():
    net = network()
    x, y = batch()
    with torch.no_grad():
        outputs = [net(x_t) for x_t in x]
    fastsnn.reset(net)
    expected_loss = sum(float(online.loss(o, y, T)) for o in outputs)
    result = online.train_batch(net, x, y, torch.optim.SGD(net.parameters(), 0.0), mode="A")
    assert result.loss == pytest.approx(expected_loss)
    assert result.correct == int((sum(outputs).argmax(1) == y).sum())
    assert result.samples == len(y)
    assert all(state["potential"] is None for state in fastsnn.states(net).values())


def test_evaluate_predicts_with_the_sum_over_time_and_restores_the_mode():
    net = network()
    x, y = batch()
    result = online.evaluate(net, [(x, y)])
    net.eval()
    with torch.no_grad():
        outputs = [net(x_t) for x_t in x]
    assert result.correct == int((sum(outputs).argmax(1) == y).sum())
    net.train()
    online.evaluate(net, [(x, y)])
    assert net.training


def test_trainer_resumes_bitwise():
    def trainer(net):
        optimizer = sgd(net)
        return online.Trainer(net, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4), mode="O")

    whole = trainer(network())
    x, y = batch()
    for _ in range(2):
        whole.train_batch(x, y)
        whole.epoch_done()
    saved = copy.deepcopy(whole.state_dict())
    whole.train_batch(x, y)
    resumed = trainer(network())
    resumed.load_state_dict(saved)
    resumed.train_batch(x, y)
    for a, b in zip(weights(whole.net), weights(resumed.net), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("rule", "options", "named"),
    [
        ("ottt", {"mode": "B"}, "mode is 'B'"),
        ("ottt", {"backward_steps": 0}, "backward_steps is 0"),
        ("ottt", {"clip": 0.0}, "clip is 0.0"),
        ("ottt", {"clip": -1.0}, "clip is -1.0"),
        ("ottt", {"clip": float("nan")}, "clip is NaN"),
        ("ottt", {"backward_steps": T + 1}, "backward_steps is 6"),
        ("bptt", {"mode": "O"}, "mode='A'"),
        ("bptt", {"mode": "A", "backward_steps": 1}, "random back-propagation"),
    ],
)
def test_bad_options_leave_the_weights(rule, options, named):
    net = network(rule)
    before = weights(net)
    x, y = batch()
    with pytest.raises(ValueError, match=named):
        online.train_batch(net, x, y, sgd(net), **options)
    for a, b in zip(weights(net), before, strict=True):
        assert torch.equal(a, b)


def test_direct_encoding_repeats_without_copying():
    x = torch.randn(3, 2)
    encoded = data.direct(x, 4)
    assert encoded.shape == (4, 3, 2)
    assert encoded.data_ptr() == x.data_ptr()
    assert torch.equal(encoded[3], x)


def test_poisson_encoding_has_the_intensity_as_its_rate():
    x = torch.tensor([0.0, 0.25, 1.0])
    spikes = data.poisson(x.expand(1000, 3), 40, torch.Generator().manual_seed(0))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(spikes.mean((0, 1)), x, atol=0.01, rtol=0)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_poisson_encoding_refuses_what_is_no_rate(bad):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        data.poisson(torch.tensor([0.5, bad]), 3)


@pytest.mark.parametrize("encode", [data.direct, data.poisson])
def test_encodings_need_a_step(encode):
    with pytest.raises(ValueError, match="steps is 0"):
        encode(torch.zeros(2), 0)


# targets in the forms that cross_entropy takes


@pytest.mark.parametrize("c", [0.0, 0.05, 1.0])
def test_loss_of_positions(c):
    logits, y = torch.randn(3, 4, 4, 2, dtype=torch.float64), torch.randint(4, (3, 4, 2))
    flat = online.loss(logits.movedim(1, -1).reshape(-1, 4), y.reshape(-1), T, c)
    torch.testing.assert_close(online.loss(logits, y, T, c), flat)


@pytest.mark.parametrize("c", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5)])
def test_loss_of_probabilities(c, shape):
    logits = torch.randn(shape, dtype=torch.float64)
    a, b = (torch.randint(4, (shape[0], *shape[2:])) for _ in range(2))
    hot = [F.one_hot(y, 4).movedim(-1, 1).double() for y in (a, b)]
    mixed = 0.3 * hot[0] + 0.7 * hot[1]
    torch.testing.assert_close(online.loss(logits, hot[0], T, c), online.loss(logits, a, T, c))
    entropy = -(mixed * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(
        online.loss(logits, mixed, T, c), ((1 - c) * entropy + c * (logits - mixed).square().mean()) / T
    )


def test_loss_of_one_sample_without_a_batch():
    logits, y = torch.randn(4, dtype=torch.float64), torch.tensor(2)
    torch.testing.assert_close(online.loss(logits, y, T), online.loss(logits.unsqueeze(0), y.view(1), T))


def test_mixup_and_positions_are_counted():
    x, y = batch()
    soft = 0.9 * F.one_hot(y, 4).double() + 0.025
    net, other = network(), network()
    hard = online.train_batch(net, x, y, sgd(net, 0.0))
    mixed = online.train_batch(other, x, soft, sgd(other, 0.0))
    assert (mixed.correct, mixed.samples) == (hard.correct, hard.samples)
    assert online.evaluate(other, [(x, soft)])[1:] == online.evaluate(net, [(x, y)])[1:]
    positions = nn.Sequential(network(), nn.Unflatten(1, (2, 2)))
    result = online.train_batch(positions, x, y.view(-1, 1).expand(-1, 2) % 2, sgd(positions, 0.0))
    assert result.samples == 2 * len(y)
    assert 0 <= result.correct <= result.samples


# step mode "m"


def whole(rule="ottt"):
    net = network(rule)
    net[1].step_mode = net[3].step_mode = "m"
    return net


@pytest.mark.parametrize("rule", ["bptt", "sltt", "ottt", "ndot"])
def test_a_network_of_whole_sequences_trains_as_step_by_step(rule):
    net, by_step = whole(rule), network(rule)
    x, y = batch()
    results = [online.train_batch(n, x, y, sgd(n), mode="A") for n in (net, by_step)]
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-12)
    assert results[0][1:] == results[1][1:]
    torch.testing.assert_close(weights(net), weights(by_step), rtol=1e-12, atol=1e-12)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    expected = online.evaluate(by_step, [(x, y)])
    for batches in ([(x, y)], [([*x], y)], [(x[:, order], y[order])]):
        assert online.evaluate(net, batches) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("options", [{"mode": "O"}, {"mode": "A", "backward_steps": 2}])
def test_a_network_of_whole_sequences_has_one_backward(options):
    net = whole()
    before = weights(net)
    with pytest.raises(ValueError, match=r"step_mode 'm'.*use mode='A' without backward_steps"):
        online.train_batch(net, *batch(), sgd(net), **options)
    assert all(map(torch.equal, weights(net), before))


def test_one_network_has_one_step_mode():
    net = network()
    net[3].step_mode = "m"
    for call in (
        lambda: online.train_batch(net, *batch(), sgd(net), mode="A"),
        lambda: online.evaluate(net, [batch()]),
    ):
        with pytest.raises(ValueError, match=r"1 has step_mode 's' and 3 'm'"):
            call()


def test_outputs_without_steps_are_refused():
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(0)

    net = nn.Sequential(whole(), Mean())
    with pytest.raises(ValueError, match=r"T = 5 steps and the network returned \(6, 4\)"):
        online.evaluate(net, [batch()])


# modes of single modules


def frozen():
    net = nn.Sequential(nn.Linear(7, 7), nn.BatchNorm1d(7), fastsnn.OSR1d(7, T), network()).double().train()
    net[1].eval()
    net[2].eval()
    return net


def modes(net):
    return [module.training for module in net.modules()]


def test_frozen_norms_stay_frozen():
    net = frozen()
    before, statistics = modes(net), copy.deepcopy([*net.buffers()])
    trainer = online.Trainer(net, sgd(net))
    trainer.train_batch(*batch())
    assert modes(net) == before
    trainer.evaluate([batch()])
    assert modes(net) == before
    torch.testing.assert_close([*net.buffers()], statistics, rtol=0, atol=0)


def test_an_error_in_evaluation_leaves_every_module_in_its_mode():
    net = frozen()
    before, (x, y) = modes(net), batch()
    with pytest.raises(RuntimeError):
        online.evaluate(net, [(x[..., :5], y)])
    assert modes(net) == before


def test_the_trainer_takes_a_network_out_of_evaluation():
    net = network().eval()
    online.Trainer(net, sgd(net)).train_batch(*batch())
    assert all(modes(net))
