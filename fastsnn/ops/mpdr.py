"""Membrane potential distribution regularisation of a LIF layer: its arguments, and its way through autograd."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..reference import mpdr as formulas
from . import lif, synapse
from .passes.mpdr import room
from .registered import lif as registered
from .types import EMPTY, Forward, LIFParams, LIFState, Pull, Saved, number

__all__ = ["MPDR", "Regularised", "RegularisedInGraph"]

WEIGHTS = {"cifar10": 0.002, "cifar100": 0.0035, "dvs-cifar10": 0.0035, "imagenet": 0.0006}


@dataclass(frozen=True)
class MPDR:
    """A pull of a layer's potentials u[t], before reset, to N(mean, std^2) (RPTT, eq. 4).

    weight * L_M, L_M = ln(std/sd) + (sd^2 + (m - mean)^2)/(2 std^2) - 1/2 + mu_m*sd^2, joins the loss: m and sd
    (biased) are those of all n elements of the layer at step t, in the process's own batch. Its gradient is added in
    the neuron's backward, when the loss's gradient passes; a layer that no loss depends on is not regularised.

    Args:
        mean, std: target, in units of the threshold's.
        weight: a1 of the paper.
        mu_m: weight of the variance. Default 0.01.
        propagate: False (eq. 3): the gradient reaches the weights of the layer's own synapse alone. The synapse must
            feed the neuron directly (linear, convolution, WS layers) and the neuron before it must be traced or have
            the same option; a first layer may be anything. True: it goes on to lower layers too. Default False.

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


class Regularised:
    """A backend's LIF kernels with MPDR, for one call: as plain kernels, to `ops.lif`. Holds the moments that the
    forward takes and the backward needs. own: the synapse's node from `own_synapse`, to keep its input out."""

    def __init__(self, mpdr: MPDR, own: Any = None) -> None:
        self.mpdr, self.own = mpdr, own

    def around(self, kernels: Any) -> Regularised:
        self.kernels, self.NAME, self.SAVES_U = kernels, kernels.NAME, kernels.SAVES_U
        return self

    def forward(
        self,
        p: LIFParams,
        x: Tensor,
        state: LIFState,
        sequence: bool,
        v_seq: bool = False,
        into: LIFState = EMPTY,
        u_seq: bool = False,
    ) -> Forward:
        self.moments = room(x, sequence)
        return self.kernels.forward(p, x, state, sequence, v_seq, into, u_seq, moments_out=self.moments)

    def backward(
        self,
        p: LIFParams,
        saved: Saved,
        g_s: Tensor | None,
        g_v: Tensor | None = None,
        g_v_seq: Tensor | None = None,
        want_v: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        m = self.mpdr
        pull = Pull(self.moments, m.mean, m.std, m.weight, m.mu_m, self.own is not None)
        g_x, g_v_first, local = self.kernels.backward(p, saved, g_s, g_v, g_v_seq, want_v, pull=pull)
        if self.own is not None:
            synapse.add_to_weights(self.own, local)
        return g_x, g_v_first


class RegularisedInGraph:
    """As `Regularised`, inside a graph of torch.compile. Raises RuntimeError for propagate=False."""

    NAME = registered.NAME

    def __init__(self, mpdr: MPDR) -> None:
        if not mpdr.propagate:
            raise RuntimeError(
                "MPDR(propagate=False) keeps its gradient to one synapse by that synapse's node in autograd, which a "
                "graph of torch.compile does not have: pass propagate=True, or train outside of torch.compile"
            )
        self.mpdr = mpdr

    def around(self, kernels: Any) -> RegularisedInGraph:
        return self

    def forward(
        self, p: LIFParams, x: Tensor, state: LIFState, sequence: bool, v_seq: bool = False, into: LIFState = EMPTY
    ) -> Forward:
        m = self.mpdr
        out, self.moments = registered.regularised(p, x, state, sequence, v_seq, [m.mean, m.std, m.weight, m.mu_m])
        return out


def own_synapse(x: Tensor) -> Any:
    """The node of the synapse that made x, whose weights take L_M's gradient apart from its input; None where nothing
    lower would take it. Raises RuntimeError where x comes from lower neurons in another way."""
    if isinstance(x.grad_fn, synapse.NODES):
        return x.grad_fn
    if torch.is_grad_enabled() and _reaches_a_neuron(x.grad_fn):
        raise RuntimeError(
            "MPDR(propagate=False) keeps its gradient from lower layers, and this neuron's input comes from "
            f"{type(x.grad_fn).__name__}, not straight from a linear or convolution layer behind a traced neuron "
            "or one with the same option. Give the neuron before it MPDR(propagate=False), or pass propagate=True"
        )
    return None


def _reaches_a_neuron(node: Any) -> bool:
    seen, todo = set(), [node]
    while todo:
        node = todo.pop()
        if isinstance(node, lif.NODES):
            return True
        if node is not None and node not in seen:
            seen.add(node)
            todo += [parent for parent, _ in node.next_functions]
    return False
