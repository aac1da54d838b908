"""A backward pass belongs to its forward: the backend that was forced there, in whatever thread it runs."""

import threading

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn import backends
from fastsnn.online import MPDR

from ..safety.calls import recorded

pytestmark = pytest.mark.skipif(backends.cpu._cpu is None, reason="needs the CPU core")


def in_a_thread(function):
    """On a CUDA device every backward pass runs in another thread."""
    raised = []

    def run():
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


NETWORKS = {
    "layers": lambda: nn.Sequential(
        fastsnn.WSLinear(4, 6),
        fastsnn.LIF.for_rule("ottt", mpdr=MPDR(0.0, 1.0, 0.1, propagate=True)),
        fastsnn.BinaryLinear(6, 6),
        fastsnn.LIF(),
        fastsnn.OSR1d(6, 2),
        fastsnn.LIF.for_rule("sltt", threshold="ots"),
        fastsnn.BinaryLinear(6, 6),
        fastsnn.EMPF(2, "II", channels=6),
    ),
    "fused": lambda: nn.Sequential(nn.Linear(4, 6), fastsnn.OSRLIF.for_rule("sltt", 6, 2), nn.Linear(6, 6)),
    "sequence": lambda: fastsnn.LIF(step_mode="m"),
}


@pytest.mark.parametrize("how", ["eager", "checkpoint", "compiled"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_backward_in_another_thread_runs_on_the_forwards_backend(name, how):
    torch.manual_seed(0)
    net = NETWORKS[name]()
    run = torch.compile(net, fullgraph=True) if how == "compiled" else net
    if how == "checkpoint":
        run = lambda x: fastsnn.checkpoint(net, x)  # noqa: E731
    x = torch.randn(3, 4, requires_grad=True)
    with recorded(backends.REGISTRY["cpu"].KERNELS) as calls:
        with fastsnn.use_backend("reference"):
            loss = run(x).sum()
        in_a_thread(loss.backward)
        assert not calls
        assert x.grad is not None
        fastsnn.reset(net)
        loss = run(x).sum()
        in_a_thread(loss.backward)
        assert any("backward" in kernel or "reduce" in kernel for kernel, _ in calls)


def test_a_gradient_of_operators_runs_on_the_forwards_backend(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x = torch.randn(3, 4, requires_grad=True)
    with recorded(backends.REGISTRY["cpu"].KERNELS) as calls:
        with fastsnn.use_backend("reference"):
            loss = fastsnn.functional.lif_sequence(x).spikes.sum()
        in_a_thread(loss.backward)
    assert not calls


def test_operators_take_the_backend_as_an_argument():
    weight = torch.randn(2, 3)
    with recorded(backends.REGISTRY["cpu"].KERNELS) as calls:
        torch.ops.fastsnn.binarize(weight, True, "reference")
        assert not calls
        torch.ops.fastsnn.binarize(weight, True, None)
        torch.ops.fastsnn.binarize(weight, True)
        assert len(calls) == 2
    with pytest.raises(fastsnn.BackendError, match="backend is 'x'; allowed: "):
        torch.ops.fastsnn.binarize(weight, True, "x")
    assert backends.override() is None
