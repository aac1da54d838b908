"""Surrogate derivatives against autograd of the function each one is the slope of."""

import math

import pytest
import torch

from fastsnn import surrogate

from ..cases import assert_same


def ramp(z, width):
    """0 to 1, linearly over `width`."""
    return (z / width + 0.5).clamp(0, 1)


def tent(z, base):
    """Integral of a triangle of half width `base` and area 1."""
    y = (z / base).clamp(-1, 1)
    return 0.5 + y - y * y.abs() / 2


PRIMITIVES = {
    "Sigmoid": lambda z, alpha: torch.sigmoid(alpha * z),
    "Triangle": tent,
    "Rectangle": ramp,
    "Rect": lambda z, alpha: ramp(z, 1 / alpha),
    "ATan": lambda z, alpha: torch.atan(math.pi / 2 * alpha * z) / math.pi + 0.5,
    "PiecewiseQuadratic": lambda z, alpha: tent(z, 1 / alpha),
    "PiecewiseExp": lambda z, alpha: 0.5 + 0.5 * z.sign() * (1 - torch.exp(-alpha * z.abs())),
    "SoftSign": lambda z, alpha: 0.5 + 0.5 * torch.nn.functional.softsign(alpha * z),
    "SuperSpike": lambda z, alpha: alpha * torch.nn.functional.softsign(z),
    "Erf": lambda z, alpha: 0.5 + 0.5 * torch.erf(alpha * z),
}


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", PRIMITIVES)
def test_derivative_is_the_slope_of_its_primitive(name, alpha):
    z = torch.linspace(-3, 3, 998, dtype=torch.float64).requires_grad_()  # between all edges
    (slope,) = torch.autograd.grad(PRIMITIVES[name](z, alpha).sum(), z)
    actual = surrogate.SURROGATES[name](alpha).derivative(z.detach())
    assert_same(actual, slope, rtol=1e-12, atol=1e-14)


def test_every_surrogate_has_a_primitive_here():
    assert PRIMITIVES.keys() == surrogate.SURROGATES.keys()


@pytest.mark.parametrize("name", PRIMITIVES)
def test_called_it_is_the_step_with_its_derivative(name):
    fn = surrogate.SURROGATES[name]()
    z = torch.tensor([-1.0, -0.25, -0.0, 0.0, 0.25, 1.0], requires_grad=True)
    s = fn(z)
    assert s.tolist() == [0, 0, 1, 1, 1, 1]
    s.sum().backward()
    assert_same(z.grad, fn.derivative(z.detach()))


@pytest.mark.parametrize(
    ("fn", "z", "expected"),
    [
        (surrogate.Rectangle(2.0), 1.0, 0.5),
        (surrogate.Rectangle(2.0), -1.0, 0.5),
        (surrogate.Rectangle(2.0), 1.001, 0.0),
        (surrogate.Rect(2.0), 0.25, 0.0),
        (surrogate.Rect(2.0), 0.249, 2.0),
        (surrogate.Triangle(2.0), 2.0, 0.0),
        (surrogate.Triangle(2.0), 0.0, 0.5),
    ],
    ids=str,
)
def test_edges(fn, z, expected):
    assert fn.derivative(torch.tensor(z)).item() == expected


@pytest.mark.parametrize("name", PRIMITIVES)
def test_far_from_the_threshold_it_is_finite(name):
    z = torch.tensor([-1e30, -200.0, 200.0, 1e30, -torch.inf, torch.inf])
    assert surrogate.SURROGATES[name]().derivative(z).isfinite().all()


@pytest.mark.parametrize("alpha", [0, -1.0, math.nan, math.inf, "4", None], ids=repr)
def test_alpha_out_of_range(alpha):
    with pytest.raises((TypeError, ValueError), match=r"alpha of .*ATan"):
        surrogate.ATan(alpha)


@pytest.mark.parametrize("given", ["sigmoid", None, torch.nn.Sigmoid(), surrogate.Sigmoid], ids=repr)
def test_what_is_no_surrogate_is_refused(given):
    with pytest.raises(TypeError, match=r"surrogate_function is .*allowed are .*Sigmoid, Triangle"):
        surrogate.coerce(given)
