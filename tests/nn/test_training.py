"""Networks under autograd, autocast and DistributedDataParallel."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.types import RULES

from ..cases import ONLINE, TRACED, assert_same, current
from . import ddp_worker

CLOSE = {"rtol": 1e-12, "atol": 1e-13}


def network(rule, dtype=torch.float64):
    torch.manual_seed(1)
    layers = [
        nn.Conv2d(2, 4, 3, padding=1),
        fastsnn.LIF.for_rule(rule, v_threshold=0.3),
        nn.AvgPool2d(2),
        fastsnn.WSConv2d(4, 6, 3),
        fastsnn.LIF.for_rule(rule, v_threshold=0.3),
        nn.Flatten(),
        nn.Linear(24, 5),
    ]
    return nn.Sequential(*layers).to(dtype)


def images(dtype=torch.float64, T=4):
    return current(T, 3, 2, 8, 8, dtype=dtype)


def gradients(net):
    return [p.grad.clone() for p in net.parameters()]


@pytest.mark.parametrize("rule", ONLINE)
def test_one_late_backward_equals_one_a_step(rule):
    x, by_step, late = images(), network(rule), network(rule)
    for x_t in x:
        by_step(x_t).square().sum().backward()
    sum(late(x_t).square().sum() for x_t in x).backward()
    assert by_step[0].weight.grad.any()
    assert_same(gradients(late), gradients(by_step), **CLOSE)


@pytest.mark.parametrize("rule", ONLINE)
def test_the_gradient_of_a_step_does_not_reach_earlier_steps(rule):
    net, x = network(rule), images().requires_grad_()
    outputs = [net(x_t) for x_t in x]
    outputs[-1].sum().backward()
    assert x.grad[-1].any()
    assert not x.grad[:-1].any()


def test_bptt_reaches_earlier_steps():
    net, x = network("bptt"), images().requires_grad_()
    outputs = [net(x_t) for x_t in x]
    outputs[-1].sum().backward()
    assert x.grad[0].any()


@pytest.mark.parametrize("rule", RULES)
def test_weights_changed_before_a_late_backward_raise(rule):
    net = network(rule)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = images()
    first = net(x[0]).sum()
    net(x[1]).sum().backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        first.backward()


@pytest.mark.parametrize("rule", ONLINE)
def test_updates_between_steps_need_no_detach(rule):
    net = network(rule)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = net[0].weight.detach().clone()
    for x_t in images():
        optimizer.zero_grad()
        net(x_t).square().sum().backward()
        optimizer.step()
    assert not torch.equal(net[0].weight, before)


@pytest.mark.parametrize("rule", RULES)
def test_a_retained_graph_gives_the_same_gradient_twice(rule):
    net = network(rule)
    loss = sum(net(x_t).square().sum() for x_t in images())
    first = torch.autograd.grad(loss, [*net.parameters()], retain_graph=True)
    assert_same(torch.autograd.grad(loss, [*net.parameters()]), first)


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("rule", RULES)
def test_a_second_derivative_of_a_neuron_raises(rule, mode):
    x = current(4, 41).requires_grad_()
    spikes = fastsnn.nn.plain(fastsnn.LIF.for_rule(rule, step_mode=mode)(x))
    (g,) = torch.autograd.grad((spikes * x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


@pytest.mark.parametrize("synapse", [nn.Linear(8, 5), nn.Conv1d(3, 5, 3)], ids=["linear", "conv"])
def test_a_second_derivative_of_a_traced_synapse_raises(synapse):
    s = fastsnn.LIF.for_rule("ottt")(current(3, 8).requires_grad_())
    (g,) = torch.autograd.grad(synapse(s).square().sum(), s.spikes, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", RULES)
def test_autocast(rule, dtype):
    net, x = network(rule, torch.float32), images(torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        outputs = [net(x_t) for x_t in x]
        loss = sum(out.float().square().sum() for out in outputs)
    loss.backward()
    assert outputs[0].dtype == dtype
    assert net[1].v.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())


def test_autocast_gradients_are_those_of_full_precision_but_for_rounding():
    grads = []
    for enabled in (False, True):
        linear = nn.Linear(41, 5)
        nn.init.constant_(linear.weight, 0.5)
        s = fastsnn.LIF.for_rule("ottt")(torch.linspace(-1, 2, 41).expand(3, 41))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            linear(s).float().sum().backward()
        grads.append(linear.weight.grad)
    assert_same(grads[1], grads[0], rtol=2**-7)


@pytest.mark.parametrize("rule", TRACED)
def test_gradient_checkpoint_of_a_synapse(rule):
    s, linear = fastsnn.LIF.for_rule(rule)(current(3, 41)), nn.Linear(41, 5)
    torch.utils.checkpoint.checkpoint(linear, s, use_reentrant=False).sum().backward()
    assert_same(linear.weight.grad, s.trace.sum(0).expand(5, 41), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_distributed_data_parallel(tmp_path):
    worker = Path(__file__).with_name("ddp_worker.py")
    ranks = [subprocess.Popen([sys.executable, worker, tmp_path, str(rank)]) for rank in range(2)]
    assert [rank.wait(timeout=60) for rank in ranks] == [0, 0]
    net, x = ddp_worker.network(), ddp_worker.images()
    for x_t in x:
        ddp_worker.loss(net(x_t)).backward()
    assert_same(torch.load(tmp_path / "gradients"), gradients(net), **CLOSE)
