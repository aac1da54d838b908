"""Membrane potential distribution regularisation of a LIF layer: its arguments, and which weights it reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from ..reference import mpdr as formulas
from ..types import flag, number
from . import empf, lif, osr, ots
from .common.autograd import up_to_neurons

__all__ = ["MPDR", "Apart", "apart_of"]

WEIGHTS = {"cifar10": 0.002, "cifar100": 0.0035, "dvs-cifar10": 0.0035, "imagenet": 0.0006}


@dataclass(frozen=True)
class MPDR:
    """A pull of a layer's potentials u[t], before reset, to N(mean, std^2) (RPTT, eq. 4).

    weight * L_M, L_M = ln(std/sd) + (sd^2 + (m - mean)^2)/(2 std^2) - 1/2 + mu_m*sd^2, is a term of the loss: m and sd
    (biased) are those of all n elements of the layer at step t, in the process's own batch. Add it to each step's loss:
    `fastsnn.online.regularisation(net)` sums it over the layers of a network, `fastsnn.online.train_batch` adds that by
    itself, and `neuron.mpdr_loss` is L_M of one layer. The neuron's backward takes its gradient in the same pass.

    Args:
        mean, std: target, in units of the threshold's.
        weight: a1 of the paper.
        mu_m: weight of the variance. Default 0.01.
        propagate: False (eq. 3): the gradient reaches what lies between the neurons before and this one alone, its
            synapse with its norm, or several where their currents add; behind other neurons that takes their weights'
            gradient twice, once for the loss and once for L_M. True: it goes on to lower layers too, in one pass.
            Default False.

    Constant potentials (sd = 0) have an infinite loss and are pulled by their mean alone; NaN and infinity go through.
    Raises TypeError or ValueError for arguments out of range.
    """

    mean: float
    std: float
    weight: float
    mu_m: float = 0.01
    propagate: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "std", "weight", "mu_m"):
            if not math.isfinite(number(name, getattr(self, name))):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be finite")
        flag("propagate", self.propagate)
        if not self.std > 0:
            raise ValueError(f"std is {self.std}; it must be > 0")
        for name in ("weight", "mu_m"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")

    @classmethod
    def paper(
        cls, data: str = "cifar10", scale: float = 1.0, propagate: bool = False, std: float = math.sqrt(10)
    ) -> MPDR:
        """The paper's target N(-60, 10) and its weight for a data set.

        The paper writes N(mu, sigma^2), so that 10 is the variance. The pair is in millivolts and the paper's threshold
        is 1. scale: thresholds in a millivolt. The default 1 takes the numbers as they are printed, 60 thresholds below
        zero; 1/20 is a threshold of 20 mV. std: in millivolts; 10.0 takes the printed 10 as the standard deviation.
        """
        if data not in WEIGHTS:
            raise ValueError(f"data is {data!r}; allowed: {', '.join(WEIGHTS)}")
        return cls(-60 * scale, std * scale, WEIGHTS[data], propagate=propagate)

    def loss(self, moments: Tensor) -> Tensor:
        """L_M of each step, without the weight, from mean and variance of u [T, 2]."""
        return formulas.loss(moments, self.mean, self.std, self.mu_m)


class Apart:
    """What lies between a neuron's input and the neurons before it: the `parameters` there, and a backward pass for
    these alone."""

    def __init__(self, edge: Any, parameters: list[Tensor]) -> None:
        self._edge, self.parameters = edge, parameters

    def gradients(self, g_x: Tensor) -> tuple[Tensor | None, ...]:
        """Of the parameters, for the gradient g_x of the input, inside of another backward pass."""
        if not self.parameters:
            return ()
        # autograd passes the edge on, which its signature does not tell
        with up_to_neurons():
            return torch.autograd.grad(self._edge, self.parameters, g_x, retain_graph=True, allow_unused=True)


NEURONS = tuple(
    function._backward_cls
    for function in (
        lif.OnlineLIF,
        lif.BPTTLIF,
        ots.StabilizedLIF,
        osr.RenormalizedLIF,
        empf.Fire,
        empf.NormFire,
    )
)


def apart_of(x: Tensor) -> Apart | None:
    """What takes L_M's gradient for the neuron whose input is x; None where no neuron lies before it, so that nothing
    is to be kept apart. Raises RuntimeError where x comes from a graph of torch.compile, which may hold neurons."""
    if x.grad_fn is None or not torch.is_grad_enabled():
        return None
    leaves: dict[Tensor, None] = {}
    seen: set[Any] = set()
    todo: list[Any] = [x.grad_fn]
    lower = False
    while todo:
        node = todo.pop()
        if isinstance(node, NEURONS):
            lower = True
        elif node is not None and node not in seen:
            seen.add(node)
            if node.name().startswith("CompiledFunction"):
                raise RuntimeError(
                    "MPDR(propagate=False) keeps its gradient from lower layers, and this neuron's input comes from a "
                    "graph of torch.compile, whose layers it cannot tell apart: pass propagate=True, or leave the "
                    "layers before uncompiled"
                )
            if hasattr(node, "variable"):
                leaves[node.variable] = None
            todo += [parent for parent, _ in node.next_functions]
    return Apart(get_gradient_edge(x), [*leaves]) if lower else None
