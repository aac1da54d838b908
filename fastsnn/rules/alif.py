"""The adaptive LIF neuron (Bellec et al. 2018, 2020): through time, spatial, and with the trace of OTTT.

Its threshold rises with its own spikes: th[t] = th + beta*b[t-1], b[t] = rho*b[t-1] + s[t]. What is compared with th,
kept as the potential and seen by the surrogate is w[t] = u[t] - beta*b[t-1]; a spike subtracts th. The papers give a
time constant, rho = exp(-dt/tau_a) with tau_a of hundreds of steps; the defaults here are for sequences of some ten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .lif import PAPER
from .rule import Neuron, Now, Parameter, Rule, Slot, Slots

if TYPE_CHECKING:
    from torch import Tensor


class ALIFBPTT(Rule):
    """g_w = (g_s + g_b)*sg + g_v*dv/dw ; g_x = gain*g_w ; g_v[t-1] = lam*g_w, g_b[t-1] = rho*g_b + beta*(g_v - g_w)
    from the gradients of s[t], v[t] and b[t]."""

    name = "alif_bptt"
    online = False
    kernel = "alif_untraced"
    slots: ClassVar[tuple[Slot, ...]] = (Slot("adaptation", drives=True),)
    parameters = (Parameter("rho", 0.875, 0.0, 1.0), Parameter("beta", 0.25, 0.0))
    untraced = "alif_bptt"
    soft_reset = "a spike subtracts its threshold"
    paper = PAPER

    def charge(self, p: Neuron, v: Tensor, x: Tensor, slots: Slots) -> Tensor:
        _, beta = p.of_rule
        return super().charge(p, v, x, slots) - beta * slots["adaptation"]

    def settle(self, p: Neuron, u: Tensor, fired: Tensor, slots: Slots) -> tuple[Tensor, Slots]:
        (rho, beta), b = p.of_rule, slots["adaptation"]
        return self.reset(p, u, fired) + beta * b, {"adaptation": rho * b + fired.to(u)}

    def bptt_gradient(self, p: Neuron, g_s: Tensor, g_v: Tensor, g_slots: Slots, u: Tensor, sg: Tensor) -> Tensor:
        return (g_s + g_slots["adaptation"]) * sg + g_v * self.reset_derivative(p, u, sg)

    def carry(self, p: Neuron, g_u: Tensor, g_v: Tensor, g_slots: Slots) -> Slots:
        rho, beta = p.of_rule
        return {"adaptation": rho * g_slots["adaptation"] + beta * (g_v - g_u)}


class ALIFSLTT(ALIFBPTT):
    """v[t-1] and b[t-1] are detached: g_x[t] = gain*g_s[t]*sg(w[t] - th)."""

    name = "alif_sltt"
    online = True
    untraced = "alif_sltt"


class ALIF(ALIFSLTT):
    """The gradient of alif_sltt, and synapses behind take their weight gradient from a[t] = lam*a[t-1] + s[t]."""

    name = "alif"
    kernel = "alif"
    slots = (Slot("trace", every_step=True), *ALIFBPTT.slots)

    def advance(self, p: Neuron, now: Now, slots: Slots) -> Slots:
        return {"trace": p.leak * slots["trace"] + now.s}
