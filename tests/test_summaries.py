"""`fastsnn.summary` counts what a loop over all synapses counts; `online.gradient_alignment` is BPTT's cosine."""

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.nn import plain
from fastsnn.online import gradient_alignment
from fastsnn.online import loss as step_loss


def network(rule="ottt"):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        fastsnn.LIF.for_rule(rule, v_threshold=0.2),
        nn.Conv2d(4, 6, 3, padding=1, groups=2),
        fastsnn.LIF.for_rule(rule, v_threshold=0.2),
        nn.Flatten(),
        nn.Linear(6 * 9, 3),
    )


def reached(conv, active):
    """Accumulates of a convolution, one tap after the other."""
    count, (n, _, height, width) = 0, active.shape
    out_h, out_w = conv(active).shape[-2:]
    for y in range(out_h):
        for x in range(out_w):
            for dy in range(3):
                for dx in range(3):
                    row, column = y * conv.stride[0] + dy - 1, x * conv.stride[0] + dx - 1
                    if 0 <= row < height and 0 <= column < width:
                        count += int(active[:, :, row, column].sum()) * conv.out_channels // conv.groups
    return count / n


def test_operations_are_those_that_spikes_trigger():
    net, x = network().eval(), torch.randn(3, 2, 2, 5, 5)
    expected, macs = [0.0, 0.0], 0.0
    for x_t in x:
        macs += reached(net[0], torch.ones_like(x_t))
        first = net[1](net[0](x_t))
        second = net[3](net[2](first))
        expected[0] += reached(net[2], (first != 0).float())
        expected[1] += float((second != 0).sum()) * 3 / 2
    found = fastsnn.summary(net, x)
    rows = {row.name: row for row in found.rows}
    assert expected[0] > 0
    assert expected[1] > 0
    assert (rows["0"].macs, rows["0"].acs) == (pytest.approx(macs), 0)
    assert [rows["2"].acs, rows["5"].acs] == pytest.approx(expected)
    assert found.energy == pytest.approx((4.6 * macs + 0.9 * sum(expected)) / 1000)
    assert found.parameters == sum(row.parameters for row in found.rows)
    assert found.neurons == 4 * 9 + 6 * 9
    assert (rows["1"].rule, rows["1"].backend, rows["1"].shape) == ("ottt", "cpu", (4, 3, 3))
    assert "45 nm" in str(found)
    assert str(found).count("\n") == len(found.rows) + 2


class Scaled(nn.Module):
    """A layer that takes a number before its input."""

    def forward(self, factor, x):
        return plain(x) * factor


class Halved(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.scaled = inner, Scaled()

    def forward(self, x):
        return self.scaled(0.5, self.inner(x))


@pytest.mark.parametrize(
    "neuron",
    [
        fastsnn.LIF.for_rule("ottt", threshold="ots"),
        fastsnn.OSRLIF.for_rule("sltt", 4, 2),
        fastsnn.OSRLIF.for_rule("ottt", 4, 2, threshold="ots"),
        *(fastsnn.EMPF(2, version, 4) for version in ("I", "II", "III")),
    ],
    ids=["ots", "osr", "osr+ots", "I", "II", "III"],
)
def test_neurons_of_every_kind_are_counted_once(neuron):
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), Halved(neuron), nn.Flatten(), nn.Linear(36, 3))
    found = fastsnn.summary(net, torch.randn(2, 3, 2, 3, 3))
    assert found.neurons == 36
    assert found.parameters == sum(row.parameters for row in found.rows)
    assert sum(bool(row.rule) for row in found.rows) == 1
    assert {row.name for row in found.rows} >= {"0", "1.scaled", "2", "3"}


def test_a_summary_leaves_the_network_as_it_was():
    net = network()
    fastsnn.summary(net, torch.randn(2, 1, 2, 5, 5))
    assert all(module.training for module in net.modules())
    assert not isinstance(net[1].v, torch.Tensor)
    assert not net[0]._forward_hooks
    with pytest.raises(ValueError, match=r"it must be \[T, N, \*\]"):
        fastsnn.summary(net, torch.randn(0, 1, 2, 5, 5))


@pytest.mark.parametrize(
    ("rule", "through_time"), [("sltt", "bptt"), ("ottt", "bptt"), ("ndot", "bptt"), ("alif", "alif_bptt")]
)
def test_alignment_is_the_cosine_with_the_gradient_through_time(rule, through_time):
    net, x, y = network(rule), torch.randn(4, 6, 2, 5, 5), torch.arange(6) % 3
    found = gradient_alignment(net, x, y)
    gradients = []
    for kind in (rule, through_time):
        one = network(rule)
        for module in one:
            if isinstance(module, fastsnn.LIF):
                module.rule = kind
        sum(step_loss(plain(one(x_t)), y, 4) for x_t in x).backward()
        gradients.append({name: p.grad.flatten() for name, p in one.named_parameters()})
    for name, cosine in found.items():
        expected = torch.cosine_similarity(gradients[0][name], gradients[1][name], dim=0)
        assert cosine == pytest.approx(float(expected), abs=1e-5), name
    assert found["5.bias"] == pytest.approx(1)
    assert found["0.weight"] < 0.9999
    assert all(p.grad is None for p in net.parameters())
    assert all(value == pytest.approx(1, abs=1e-5) for value in gradient_alignment(net, x[:1], y).values())


def test_alignment_needs_a_rule_bptt():
    net = nn.Sequential(nn.Linear(2, 3), fastsnn.EMPF(1, "I", 3))
    with pytest.raises(ValueError, match="1 has no BPTT gradient here"):
        gradient_alignment(net, torch.randn(1, 2, 2), torch.tensor([0, 1]))
