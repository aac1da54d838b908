"""Online training through time (Xiao et al. 2022; equations/ottt.md)."""

from __future__ import annotations

from .rule import Neuron, Now, Rule, Slot, Slots

PAPER = {"decay_input": False, "v_reset": None, "surrogate_function": ("Sigmoid", 4.0)}


class OTTT(Rule):
    """a[t] = lam*a[t-1] + s[t]; the gradient of SLTT, and synapses behind take their weight gradient from a."""

    name = "ottt"
    online = True
    kernel = "ottt"
    slots = (Slot("trace", every_step=True),)
    untraced = "sltt"
    paper = PAPER

    def advance(self, p: Neuron, now: Now, slots: Slots) -> Slots:
        return {"trace": p.leak * slots["trace"] + now.s}
