"""BinaryLinear and BinaryConv2d as layers."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fastsnn

from ..cases import ON_DEVICE, VARIANTS, assert_same

GOLDEN = {
    name: torch.from_numpy(value) for name, value in np.load(Path(__file__).parents[1] / "golden" / "bconv.npz").items()
}


@pytest.mark.parametrize("variant", ["reference", *(v for v in VARIANTS if v not in ON_DEVICE)], indirect=True)
def test_golden(variant):
    layer = fastsnn.BinaryConv2d(6, 7, 3, padding=1, bias=False, dtype=torch.float64)
    layer.weight.data = GOLDEN["weight"].clone()
    x = GOLDEN["x"].clone().requires_grad_()
    y = layer(x)
    y.backward(GOLDEN["gy"])
    for actual, name in ((y, "y"), (layer.weight.grad, "gw"), (x.grad, "gx")):
        assert_same(actual.detach(), GOLDEN[name], atol=1e-10)


@pytest.mark.parametrize("scale", [True, False])
def test_linear_is_the_product_with_the_binary_weight(scale):
    layer, x = fastsnn.BinaryLinear(5, 3, scale=scale), torch.randn(4, 5)
    sign = layer.weight.sign()
    expected = sign * layer.weight.abs().mean(1, keepdim=True) if scale else sign
    assert_same(layer(x), F.linear(x, expected, layer.bias), rtol=1e-6, atol=1e-6)
    assert f"scale={scale}" in repr(layer)


def test_traced_spikes_count_as_plain_ones():
    """equations/empf.md: the weight gradient of a binary synapse uses the spike."""
    neuron, layer = fastsnn.LIF.for_rule("ottt"), fastsnn.BinaryLinear(5, 3)
    for x in torch.rand(2, 4, 5) + 0.4:
        spikes = neuron(x)
    assert not torch.equal(spikes.trace, spikes.spikes)
    gradients = [torch.autograd.grad(layer(s).sum(), layer.weight)[0] for s in (spikes, spikes.spikes)]
    assert_same(*gradients)


def test_training_moves_signs():
    torch.manual_seed(0)
    teacher, layer = torch.randn(8, 16).sign(), fastsnn.BinaryLinear(16, 8, bias=False, scale=False)
    optimizer, x = torch.optim.SGD(layer.parameters(), 0.05), torch.randn(256, 16)
    before = (layer.weight.sign() == teacher).float().mean()
    for _ in range(200):
        optimizer.zero_grad()
        F.mse_loss(layer(x), x @ teacher.t()).backward()
        optimizer.step()
    after = (layer.weight.sign() == teacher).float().mean()
    assert before < 0.8 < 0.99 < after


def test_nan_weights_are_an_error_and_stay():
    layer = fastsnn.BinaryLinear(3, 2)
    layer.weight.data[0, 0] = torch.nan
    before = layer.weight.detach().clone()
    with pytest.raises(ValueError, match="NaN"):
        layer(torch.ones(1, 3))
    assert_same(layer.weight.detach(), before, equal_nan=True)
