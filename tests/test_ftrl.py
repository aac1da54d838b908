"""FTRL-OTTT's term against its formula, and its two phases."""

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.online import FTRL

RHO = 0.3


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_value_and_gradient(norm):
    net = nn.Linear(3, 2).double()
    start = [p.detach().clone() for p in net.parameters()]
    near = FTRL(net, RHO, norm)
    assert near() == 0
    with torch.no_grad():
        for p in net.parameters():
            p += torch.randn_like(p)
    away = [p.detach() - before for p, before in zip(net.parameters(), start, strict=True)]
    size = sum(d.abs().sum() if norm == "l1" else (d * d).sum() for d in away)
    torch.testing.assert_close(near().detach(), RHO * size)
    near().backward()
    for p, d in zip(net.parameters(), away, strict=True):
        torch.testing.assert_close(p.grad, RHO * (d.sign() if norm == "l1" else 2 * d))


def test_a_second_phase_of_more_steps_stays_close():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 20), fastsnn.LIF.for_rule("ottt"), nn.Linear(20, 3))
    x, y = torch.randn(4, 8, 6), torch.randint(3, (8,))
    fastsnn.online.train_batch(net, x[:2], y, torch.optim.SGD(net.parameters(), 0.1))
    saved, moved = {k: v.clone() for k, v in net.state_dict().items()}, []
    for rho in (0.0, 1.0):
        net.load_state_dict(saved)
        near = FTRL(net, rho)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        loss = lambda o, y, T, near=near: fastsnn.online.loss(o, y, T) + near()  # noqa: E731
        for _ in range(5):
            fastsnn.online.train_batch(net, x, y, optimizer, loss=loss)
        moved.append(FTRL(net, 1.0)._pairs[0][1].sub(saved["0.weight"]).norm())
    assert 0 < moved[1] < 0.7 * moved[0]


def test_bad_arguments():
    net = nn.Linear(3, 2)
    for arguments, message in (((-1.0,), "rho is -1.0"), ((1.0, "l3"), "norm is 'l3'")):
        with pytest.raises(ValueError, match=message):
            FTRL(net, *arguments)
    with pytest.raises(ValueError, match="no parameters"):
        FTRL(nn.Flatten(), 1.0)
