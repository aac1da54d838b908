"""NDOT as its authors' code has it (Jiang et al. 2024; equations/ndot.md)."""

from __future__ import annotations

from .ndot import OF_SOFT_RESET
from .ottt import PAPER
from .rule import Neuron, Now, Rule, Slot, Slots


class NDOTReleased(Rule):
    """a[t] = e[t]*a[t-1] + s[t], e[t] = clamp(num[t]/num[t-1], -lam, lam), num[t] = v[t] - th*s[t], where the threshold
    is subtracted a second time; lam where the quotient is not defined. The slot `ratio` is num."""

    name = "ndot_released"
    online = True
    kernel = "ndot_released"
    slots = (Slot("trace", every_step=True), Slot("ratio"))
    untraced = "sltt"
    soft_reset = OF_SOFT_RESET
    paper = PAPER

    def advance(self, p: Neuron, now: Now, slots: Slots) -> Slots:
        num, den = (now.v - p.threshold * now.s).where(now.fired, now.v), slots["ratio"]
        quotient = num / den
        usable = (den != 0) & num.isfinite() & den.isfinite() & quotient.isfinite()
        ratio = quotient.clamp(-p.leak, p.leak).where(usable, quotient.new_full((), p.leak))
        return {"trace": ratio * slots["trace"] + now.s, "ratio": num}
