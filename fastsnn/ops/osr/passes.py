"""Online spiking renormalisation of a training step, with the statistics across processes, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...reference import osr as formulas
from ...stats import Gathering, Moments, Running, Settled, Used, sum_over
from ...types import Forward, LIFParams, LIFState
from ..common import layout

Out = TypeVar("Out")


class Pending:
    """`Used` of a step whose moments are still on their way between processes: what asks for them waits. local: this
    rank's."""

    def __init__(self, local: Used, eps: float, gathering: Gathering) -> None:
        self._local, self._eps, self._gathering = local, eps, gathering

    @property
    def moments(self) -> Moments:
        return self._gathering.moments

    def used(self) -> Used:
        moments, affine = self.moments, self._local.statistics[:3]
        inverse = formulas.inverse_root(moments.variance, self._eps)
        return Used(torch.cat([affine, torch.stack([moments.mean, moments.m2, inverse])]), moments.n)


def used_of(left: Settled | Pending) -> Used | Pending:
    """What the step's backward takes of what it left."""
    return left if isinstance(left, Pending) else left.used


def arrived(used: Used | Pending) -> Used:
    return used.used() if isinstance(used, Pending) else used


def told(left: Settled | Pending) -> Moments | Pending | Settled:
    """What a step left; its own moments, where no kernel took them into its sequence."""
    return left.used.moments if isinstance(left, Settled) and left.total is None else left


def kernels_of(kernels: Any, x: Tensor) -> Any:
    """Kernels of a step of x: none looks at a tensor without elements."""
    return kernels if x.numel() else formulas


def check_enough(x: Tensor, group: Any) -> None:
    """Raises ValueError for one element a channel: its gradient would be zero everywhere."""
    if group is None and x.numel() == x.shape[1]:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, one element a channel: training needs more, as batch normalisation does"
        )


def laid_out(x: Tensor) -> Tensor:
    """x where it is contiguous or has its channels last, else a contiguous copy."""
    return x if x.is_contiguous() or x.movedim(1, -1).is_contiguous() else x.contiguous()


def _check_finite(strict: bool, elements: int | Tensor, accepted: Tensor) -> None:
    """Raises FloatingPointError where strict accepted none of a step's elements; a device, which nothing waits for,
    keeps the step's number."""
    if strict and accepted.device.type == "cpu" and accepted == 0 and elements > 0:
        raise FloatingPointError("the input holds NaN or infinity; its statistics are not accumulated")


def _normalized(
    x: Tensor, weight: Tensor, running: Running, group: Any, run: Callable[[Running], tuple[Out, Settled]]
) -> tuple[Out, Settled | Pending]:
    """run(running), or in a group a second one where the statistics of all ranks normalise. A device decides about that
    alone, and runs it in any case."""
    if group is None:
        out, settled = run(running)
        _check_finite(running.strict, x.numel(), settled.used.n)
        return out, settled
    out, (local, *_) = run(Running(*running[:3]))
    gathering = Gathering(local.moments, group)
    if running.max_ratio is None and not running.strict:
        return out, Pending(local, running.eps, gathering)
    moments = formulas.accepted(gathering.moments, running.strict)
    _check_finite(running.strict, gathering.moments.n, moments.n)
    exceeded, mean, variance = formulas.normalising(moments, running)
    if exceeded is not None and (exceeded.device.type != "cpu" or exceeded):
        out, _ = run(Running(mean, variance, running.eps))
    return out, Settled(formulas.used(weight, mean, variance, moments, running.eps))


def renormalize(
    kernels: Any, x: Tensor, weight: Tensor, bias: Tensor, running: Running, group: Any
) -> tuple[Tensor, Settled | Pending]:
    """y. x: of `laid_out`."""
    check_enough(x, group)
    kernels = kernels_of(kernels, x)
    return _normalized(x, weight, running, group, lambda running: kernels.normalize(x, weight, bias, running))


def renormalized_lif(
    kernels: Any,
    p: LIFParams,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: Running,
    state: LIFState,
    group: Any,
) -> tuple[Forward, Settled | Pending]:
    """A step of the neuron on y. x: of `laid_out`, and the state in its memory order."""
    check_enough(x, group)
    kernels = kernels_of(kernels, x)
    run: Callable[[Running], Any] = lambda running: kernels.lif_forward(p, x, weight, bias, running, state)  # noqa: E731
    return _normalized(x, weight, running, group, run)


def renormalized_charge(
    kernels: Any,
    p: LIFParams,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: Running,
    v: Tensor | None,
    group: Any,
) -> tuple[tuple[Tensor, Moments], Settled | Pending]:
    """u of the neuron on y, and its moments. x: of `laid_out`, and v in its memory order."""
    check_enough(x, group)
    kernels = kernels_of(kernels, x)
    return _normalized(x, weight, running, group, lambda running: kernels.charge(p, x, weight, bias, running, v))


def _gradients(
    kernels: Any, x: Tensor, g: Tensor, reduced: tuple[Tensor, Tensor, Tensor], used: Used, group: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """g_x, g_weight and g_bias from g = g_y and what was summed of it. Under DistributedDataParallel means are over all
    ranks, and the parameters' gradients this rank's, which it averages."""
    means, g_weight, g_bias = reduced
    return kernels.gradient(x, g, used, means if group is None else sum_over(means, group)), g_weight, g_bias


def renormalize_gradient(
    kernels: Any, x: Tensor, g: Tensor, used: Used, group: Any, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, the latter of `dtype`."""
    g, kernels = layout.like(g, x), kernels_of(kernels, x)
    return _gradients(kernels, x, g, kernels.reduce(x, g, used, dtype), used, group)


def renormalized_lif_gradient(
    kernels: Any,
    p: LIFParams,
    x: Tensor,
    g_s: Tensor,
    u: Tensor,
    keep: Tensor | None,
    used: Used,
    group: Any,
    dtype: torch.dtype,
    threshold: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `renormalize_gradient`, behind the neuron; threshold: th[t] of OTS."""
    kernels = kernels_of(kernels, x)
    g, reduced = kernels.lif_reduce(p, x, layout.like(g_s, x), u, keep, used, dtype, threshold)
    return _gradients(kernels, x, g, reduced, used, group)
