"""The neuron rules, one file each: state slots, parameters, step and gradient in plain PyTorch, with the equations.

All else iterates over RULES. No file here imports torch, so that `fastsnn --help` need not.
"""

from .alif import ALIF, ALIFBPTT, ALIFSLTT
from .lif import BPTT, SLTT
from .ndot import NDOT
from .ndot_released import NDOTReleased
from .ottt import OTTT
from .rule import Parameter, Rule, Slot

__all__ = ["RULES", "SLOTS", "Parameter", "Rule", "Slot"]

RULES: dict[str, Rule] = {
    rule.name: rule() for rule in (BPTT, SLTT, OTTT, NDOT, NDOTReleased, ALIFBPTT, ALIFSLTT, ALIF)
}
# every slot's name, in the order in which rules first name it
SLOTS: tuple[str, ...] = tuple(dict.fromkeys(slot.name for rule in RULES.values() for slot in rule.slots))
