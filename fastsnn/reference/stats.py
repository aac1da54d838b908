"""Mean and variance of one step, in float64."""

from __future__ import annotations

from torch import Tensor

from ..stats import Moments


def per_channel(x: Tensor) -> Moments:
    """Moments of x [N, C, *] for each of its channels."""
    columns = x.double().transpose(0, 1).flatten(1)  # [C, n]
    return _moments(columns)


def whole(x: Tensor) -> Moments:
    """Moments of all elements of x."""
    return _moments(x.double().flatten())


def _moments(rows: Tensor) -> Moments:
    count = rows.shape[-1]
    mean = rows.sum(-1) / max(count, 1)
    return Moments(rows.new_full((), count), mean, (rows - mean[..., None]).square().sum(-1))
