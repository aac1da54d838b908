"""Online mean and variance: the moments of parts, merged into those of the whole (Chan, Golub, LeVeque 1979)."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Of some elements, in float64: how many, their mean, and M2, the sum of squared deviations from it.

    mean and m2 have one shape, [C] for moments per channel and [] for those of a whole tensor; n has [].
    """

    n: Tensor
    mean: Tensor
    m2: Tensor

    @property
    def variance(self) -> Tensor:
        """Biased; 0 where there are no elements."""
        return self.m2 / self.n.clamp(min=1)

    @property
    def unbiased_std(self) -> Tensor:
        """Square root of the unbiased variance; NaN for fewer than two elements."""
        return (self.m2 / (self.n - 1)).sqrt()


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of the elements of both. Nothing is subtracted, so M2 neither cancels nor falls below zero."""
    n = a.n + b.n
    share = b.n / n.clamp(min=1)
    delta = b.mean - a.mean
    return Moments(n, a.mean + delta * share, a.m2 + b.m2 + delta * delta * (a.n * share))


def pooled(a: Moments, b: Moments) -> Moments:
    """As `merge`, with the variance around the mean of each: what their means differ by does not count."""
    whole = merge(a, b)
    return whole._replace(m2=a.m2 + b.m2)


def fold(
    running: tuple[Tensor, Tensor], folds: Tensor, total: Moments, share: float | Tensor, ends: Tensor | bool = True
) -> None:
    """A sequence's moments into running mean and variance, in place and of weight `share`, where the sequence ends; no
    elements at all are no news. folds counts sequences."""
    weight = share * (total.n > 0).double()
    for old, new in zip(running, (total.mean, total.variance), strict=True):
        after = old + (weight * (new - old)).to(old.dtype)
        old.copy_(torch.where(ends, after, old) if isinstance(ends, Tensor) else after)
    folds += ends


class Sequence(NamedTuple):
    """What a kernel does with a training step's moments."""

    step: int  # of the sequence, from 1
    before: Moments | None  # of the steps before it, which they are merged with
    pooled: bool  # by `pooled` in place of `merge`
    ends: bool  # the whole is folded into the running statistics then
    share: float | Tensor  # as `fold` has it; a tensor is float64 []
    folds: Tensor  # int64 []
    refused: Tensor | None  # the first step that strict left out on a device, 0 for none; float64 []


class Running(NamedTuple):
    """What a step normalises with; max_ratio and strict: as `fastsnn.OSR`'s. With a sequence, kernels take the step's
    moments there."""

    mean: Tensor
    variance: Tensor
    eps: float
    max_ratio: float | None = None
    strict: bool = False
    sequence: Sequence | None = None


class Used(NamedTuple):
    """What a step was normalised with, y = (x - center)*factor + bias with factor = weight*scale; mean and M2 of the
    step itself over all ranks, and inverse = 1/sqrt(their variance + eps): [6, C]; n []. float64."""

    statistics: Tensor
    n: Tensor

    @property
    def center(self) -> Tensor:
        return self.statistics[0]

    @property
    def factor(self) -> Tensor:
        return self.statistics[1]

    @property
    def scale(self) -> Tensor:
        return self.statistics[2]

    @property
    def inverse(self) -> Tensor:
        return self.statistics[5]

    @property
    def moments(self) -> Moments:
        return Moments(self.n, self.statistics[3], self.statistics[4])


class Settled(NamedTuple):
    """What a step leaves: with a sequence, its moments so far and what `Sequence.refused` is now."""

    used: Used
    total: Moments | None = None
    refused: Tensor | None = None


def group_of_all() -> Any:
    """The process group whose batches form one batch: the default one where several processes train, else None."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        return distributed.group.WORLD
    return None


class Gathering:
    """The moments of all ranks of a group, on their way to each. One collective."""

    def __init__(self, local: Moments, group: Any) -> None:
        mine = torch.cat([local.n.view(1), local.mean, local.m2])
        self._ranks = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size(group))]
        self._work = torch.distributed.all_gather(self._ranks, mine, group, async_op=True)

    @cached_property
    def moments(self) -> Moments:
        """Waits for them; merged in the order of ranks: the same bits on each."""
        self._work.wait()
        whole, *others = (Moments(rank[0], *rank[1:].chunk(2)) for rank in self._ranks)
        for other in others:
            whole = merge(whole, other)
        return whole


def sum_over(sums: Tensor, group: Any) -> Tensor:
    """Sums over all ranks of `group`, in the order of ranks."""
    ranks = [torch.empty_like(sums) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(ranks, sums.contiguous(), group)
    return torch.stack(ranks).sum(0)
