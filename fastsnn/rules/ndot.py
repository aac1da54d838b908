"""NDOT (Jiang et al. 2024, eq. 12 and appendix A.2; equations/ndot.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .ottt import PAPER
from .rule import Neuron, Now, Rule, Slot, Slots

if TYPE_CHECKING:
    from torch import Tensor

OF_SOFT_RESET = "its ratio is that of potentials after soft reset"


class NDOT(Rule):
    """a[t] = e[t-1]*a[t-1] + s[t], e[t] = clamp(v[t]/v[t-1], -lam, lam); where v[t-1] = 0, lam with the sign of u[t-1].

    v[0] = 1 here, whatever the neuron starts from.
    """

    name = "ndot"
    online = True
    kernel = "ndot"
    slots = (Slot("trace", every_step=True), Slot("ratio", start=float("inf")))
    untraced = "sltt"
    soft_reset = OF_SOFT_RESET
    paper = PAPER

    def advance(self, p: Neuron, now: Now, slots: Slots) -> Slots:
        r_prev = now.v_prev.new_ones(()) if now.first else now.v_prev
        r = now.v / r_prev
        total = r.new_full((), p.leak).where(now.u_prev >= 0, r.new_full((), -p.leak))
        ratio = total.where(r_prev == 0, r.clamp(-p.leak, p.leak))
        return {"trace": slots["ratio"] * slots["trace"] + now.s, "ratio": ratio}

    def first(self, p: Neuron, v: Tensor) -> Tensor:
        """e[1] = v[1]/1."""
        return v.clamp(-p.leak, p.leak)
