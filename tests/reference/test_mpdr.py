"""MPDR's formulas against autograd of the loss, and the moments where naive sums fail."""

import math

import pytest
import torch

from fastsnn.online import MPDR
from fastsnn.reference import mpdr
from fastsnn.types import MPDRGradient

from ..cases import assert_same

TARGET = {"mean": -0.4, "std": 0.7, "mu": 0.03}


def explicit_loss(u):
    """KL(N(m, sd^2) || N(mean, std^2)) by torch, and the variance term."""
    m, sd = u.mean(), u.std(correction=0)
    target = torch.distributions.Normal(*torch.tensor([TARGET["mean"], TARGET["std"]], dtype=u.dtype))
    own = torch.distributions.Normal(m, sd)
    return torch.distributions.kl_divergence(own, target) + TARGET["mu"] * sd**2


def gradient_of(u, weight=1.0):
    """How the gradient of weight*L_M enters a backward."""
    moments = mpdr.moments(u).requires_grad_()
    with torch.enable_grad():
        (g,) = torch.autograd.grad(weight * mpdr.loss(moments, **TARGET).sum(), moments)
    return MPDRGradient(mpdr.coefficients(moments.detach(), g, u[0].numel()), False)


def test_loss_is_the_divergence_and_the_variance():
    u = torch.randn(3, 41, dtype=torch.float64)
    expected = torch.stack([explicit_loss(row) for row in u])
    assert_same(mpdr.loss(mpdr.moments(u), **TARGET), expected, rtol=1e-13)


def test_gradient_is_that_of_the_loss():
    u = torch.randn(3, 5, 41, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(sum(explicit_loss(row) for row in u), u)
    assert_same(mpdr.gradient(u.detach(), gradient_of(u.detach(), 2.5)), 2.5 * expected, rtol=1e-11, atol=1e-15)


class Loss(torch.autograd.Function):
    """The formulas' loss with the formulas' gradient, for gradcheck."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return mpdr.loss(mpdr.moments(u), **TARGET).sum()

    @staticmethod
    def backward(ctx, g):
        (u,) = ctx.saved_tensors
        return g * mpdr.gradient(u, gradient_of(u))


def test_gradcheck():
    assert torch.autograd.gradcheck(Loss.apply, torch.randn(2, 7, dtype=torch.float64, requires_grad=True))


def test_moments_of_a_large_mean():
    u = (1e4 + torch.randn(1, 100_000, dtype=torch.float64)).float()
    var = u.double().var(correction=0)
    assert mpdr.moments(u)[0, 1] == pytest.approx(var.item(), rel=1e-12)


@pytest.mark.parametrize("u", [torch.full((1, 50), 0.1), torch.full((1, 1), 7.3)], ids=["constant", "one element"])
def test_no_spread_pulls_by_the_mean_alone(u):
    moments = mpdr.moments(u)
    assert moments[0, 1] == 0
    g = mpdr.gradient(u, gradient_of(u))
    expected = (moments[0, 0] - TARGET["mean"]) / TARGET["std"] ** 2 / u.numel()
    assert_same(g, expected.float().expand_as(u), rtol=1e-6)
    assert mpdr.loss(moments, **TARGET).item() == math.inf


def test_z_score():
    moments = torch.tensor([[0.5, 0.25], [1.0, 4.0]], dtype=torch.float64)
    assert_same(mpdr.z_score(moments, 2.0), torch.tensor([3.0, 0.5], dtype=torch.float64))


def test_the_papers_preset():
    """N(mu, sigma^2) = N(-60, 10)."""
    assert MPDR.paper("cifar100") == MPDR(-60.0, math.sqrt(10), 0.0035, mu_m=0.01)
    assert MPDR.paper(scale=0.05, std=10.0) == MPDR(-3.0, 0.5, 0.002)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"std": 0}, "std is 0"),
        ({"std": -1}, "std is -1"),
        ({"weight": -0.1}, "weight is -0.1"),
        ({"mu_m": float("inf")}, "mu_m is inf"),
        ({"mean": float("nan")}, "mean is NaN"),
    ],
)
def test_values_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        MPDR(**{"mean": 0.0, "std": 1.0, "weight": 1.0, **values})


def test_values_of_another_type():
    with pytest.raises(TypeError, match="std"):
        MPDR(0.0, "10", 1.0)
    with pytest.raises(ValueError, match="cifar10"):
        MPDR.paper("mnist")
