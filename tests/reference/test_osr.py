"""The reference of the normalisation against autograd, and the merge of moments where naive sums fail."""

import pytest
import torch

from fastsnn.reference import osr, stats
from fastsnn.stats import Moments, Running, merge


def moments(count, mean, m2):
    return Moments(*(torch.tensor(float(value), dtype=torch.float64) for value in (count, mean, m2)))


def close(actual, expected, **tolerance):
    torch.testing.assert_close(actual, expected, **(tolerance or {"rtol": 1e-12, "atol": 1e-12}))


def test_merged_parts_are_the_whole():
    x = torch.randn(11, 3, 5, dtype=torch.float64) + 2
    parts = [stats.per_channel(part) for part in x.split([1, 7, 0, 3])]
    total = parts[0]
    for part in parts[1:]:
        total = merge(total, part)
    close(tuple(total), tuple(stats.per_channel(x)))


def test_a_thousand_steps_of_a_large_mean():
    x = 1e4 + torch.randn(1000, 4, 2, 16)
    total = stats.per_channel(x[0])
    for x_t in x[1:]:
        total = merge(total, stats.per_channel(x_t))
    exact = x.double().permute(2, 0, 1, 3).flatten(1).var(1, correction=0)
    close(total.variance, exact, rtol=1e-10, atol=0)


def test_ten_to_the_eighth_elements_merged():
    # 10^4 parts of 10^4 elements, their means spread around 1e4 with variance 1/12, each of variance 1
    means = 1e4 + (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000 - 0.5
    total = moments(0, 0, 0)
    for mean in means:
        total = merge(total, moments(1e4, mean, 1e4))
    assert total.n == 1e8
    close(total.mean, torch.tensor(1e4, dtype=torch.float64), rtol=1e-12, atol=0)
    close(total.variance, 1 + means.var(correction=0), rtol=1e-8, atol=0)


def test_one_element_and_a_constant_have_no_variance():
    assert stats.whole(torch.tensor([1e8 + 0.1])).variance == 0
    constant = stats.whole(torch.full((1000,), 0.1))
    assert merge(constant, constant).variance.abs() < 1e-30
    assert merge(moments(0, 0, 0), moments(1, 5, 0)) == moments(1, 5, 0)


@pytest.mark.parametrize("own", [False, True], ids=["running", "batch"])
def test_the_gradient_equals_autograd_of_the_double_transformation(own):
    """Algorithm 1 of the paper: normalised by the batch, then moved to the running statistics by factors without
    gradient. The fallback is batch normalisation."""
    eps = 1e-3
    x, g = torch.randn(4, 3, 2, 5, dtype=torch.float64), torch.randn(4, 3, 2, 5, dtype=torch.float64)
    gamma, beta, mean = (torch.randn(3, dtype=torch.float64) for _ in range(3))
    variance = torch.rand(3, dtype=torch.float64) + 0.5
    leaves = [leaf.requires_grad_() for leaf in (x, gamma, beta)]

    mu, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    if own:
        mean, variance = mu.detach(), var.detach()
    wide = lambda vector: vector.view(-1, 1, 1)  # noqa: E731
    hat = (x - wide(mu)) / wide((var + eps).sqrt())
    ratio = ((var + eps).sqrt() / (variance + eps).sqrt()).detach()
    offset = ((mu - mean) / (variance + eps).sqrt()).detach()
    y = wide(gamma) * (hat * wide(ratio) + wide(offset)) + wide(beta)
    expected = torch.autograd.grad(y, leaves, g)

    # where the batch's own normalise, any ratio is too large
    found, (used, *_) = osr.normalize(x.detach(), gamma, beta, Running(mean, variance, eps, 0.0 if own else None))
    means, g_gamma, g_beta = osr.reduce(x.detach(), g, used, torch.float64)
    close(found, y.detach())
    close((osr.gradient(x.detach(), g, used, means), g_gamma, g_beta), expected)
