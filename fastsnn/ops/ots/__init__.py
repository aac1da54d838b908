"""The LIF step under the online threshold stabiliser (equations/ots.md): statistics of u, then firing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import backends
from ...reference.lif import settled
from ...stats import Moments
from ...types import LIFParams, LIFState
from ..common import layout
from ..common.autograd import of_neuron
from ..common.dispatch import by_operators
from ..lif import LIFOutput, check_input, check_state
from . import graph

RULES = ("sltt", "ottt")

Stabilize = Callable[[Moments], Tensor]


def check_params(p: LIFParams) -> None:
    """Raises ValueError for a rule or a threshold that OTS cannot have."""
    if p.rule not in RULES:
        raise ValueError(
            f"rule is {p.rule!r}; threshold='ots' goes with {' and '.join(map(repr, RULES))}: it has no gradient "
            "through time, and the slots of other rules go with a constant threshold"
        )
    if not abs(p.threshold) < float("inf"):
        raise ValueError(f"v_threshold is {p.v_threshold}; with threshold='ots' it must be finite, that of t = 1")


class StabilizedLIF(torch.autograd.Function):
    """Spikes of one step, fired at u >= th[t]; g_x = gain*g_s*sg(u - th[t]), nothing through th. `out` receives the
    rest; u, which is saved, is an output for `first_order`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: LIFParams, state: LIFState, stabilize: Stabilize, out: list[Any]) -> Any:
        ctx.kernels = kernels = backends.select("ots", x)
        u, moments = kernels.charge(p, x, state.potential)
        threshold = stabilize(moments)
        spikes, v, trace = kernels.fire(p, u, threshold, state.trace, state.keep, x.dtype)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(u, threshold, state.keep)
        ctx.p, ctx.dtype = p, x.dtype
        out += [v, trace, kernels.NAME]
        return spikes, u

    @staticmethod
    @of_neuron
    def backward(ctx: Any, g_s: Tensor | None, _: None) -> Any:
        if g_s is None:
            return None, None, None, None, None
        u, threshold, keep = ctx.saved_tensors
        u = layout.dense(u)
        keep = layout.like_or_none(keep, u)
        g_x = ctx.kernels.backward(ctx.p, u, threshold, keep, layout.like(g_s, u), ctx.dtype)
        return g_x, None, None, None, None


def output(spikes: Tensor, v: Tensor, trace: Tensor | None, keep: Tensor | None, name: str) -> LIFOutput:
    """Of a step whose potential is after its reset."""
    return LIFOutput(spikes, LIFState(v, True, trace, None, keep), trace, v, name)


def run(p: LIFParams, x: Tensor, state: LIFState, stabilize: Stabilize) -> LIFOutput:
    """One step of p from `state`; stabilize(moments of u) is the threshold, float64 [].

    Raises TypeError or ValueError for an input or a state that does not fit, BackendError where no backend runs.
    """
    check_input(x, False)
    through = by_operators(x, state=state)
    check_state(x, state, False)
    if through:
        u, moments = graph.charge(p, x, settled(p, state).potential)
        spikes, v, trace = graph.fire(p, x, u, stabilize(moments), state.trace, state.keep)
        name = graph.NAME
    else:
        x, state = layout.aligned(x, state, False)
        state = settled(p, state)
        out: list[Any] = []
        spikes, _ = StabilizedLIF.apply(x, p, state, stabilize, out)
        v, trace, name = out
    return output(spikes, v, trace, state.keep, name)
