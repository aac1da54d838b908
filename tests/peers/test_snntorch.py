"""fastsnn against snnTorch's Leaky where the two have an equivalent."""

import pytest
import torch

import fastsnn

from ..cases import assert_same

snntorch = pytest.importorskip("snntorch", reason="snnTorch is not installed")


def leaky(x, beta):
    """Spikes, v after the reset and input gradient of a Leaky with the reset in its own step."""
    node = snntorch.Leaky(beta, spike_grad=snntorch.surrogate.atan(2.0), reset_delay=False, reset_mechanism="subtract")
    leaf, mem, rows = x.clone().requires_grad_(), node.init_leaky(), []
    for x_t in leaf:
        spikes, mem = node(x_t, mem)
        rows.append(spikes)
    spikes = torch.stack(rows)
    # snnTorch returns float32 whatever it is given
    return spikes.double().detach(), mem.detach(), torch.autograd.grad(spikes, leaf, torch.ones_like(spikes))[0]


def lif(x, beta):
    node = fastsnn.LIF(
        1 / (1 - beta),
        decay_input=False,
        v_reset=None,
        surrogate_function=fastsnn.surrogate.ATan(2.0),
        step_mode="m",
    )
    leaf = x.clone().requires_grad_()
    spikes = node(leaf)
    return spikes.detach(), node.v.detach(), torch.autograd.grad(spikes, leaf, torch.ones_like(spikes))[0]


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_leaky(beta):
    # a potential that stays above the threshold after the reset is where snnTorch fires once less
    x = (0.3 + torch.randn(6, 4, 7, dtype=torch.float64)).clamp(max=0.95)
    assert_same(lif(x, beta), leaky(x, beta), rtol=1e-6, atol=1e-7)


def test_equality_fires_here_and_not_there():
    x = torch.ones(1, 1, dtype=torch.float64)
    assert lif(x, 0.5)[0].item() == 1
    assert leaky(x, 0.5)[0].item() == 0
