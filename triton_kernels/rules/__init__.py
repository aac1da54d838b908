"""The neuron rules' steps and gradients, one file each; the kernels iterate over what they declare."""

from .alif import ALIF, ALIF_UNTRACED
from .ndot import NDOT
from .ndot_released import NDOT_RELEASED
from .ottt import OTTT
from .rule import UNTRACED, Rule

__all__ = ["RULES", "Rule"]

# in the order of csrc/core/rules/list.h
RULES: dict[str, Rule] = {rule.name: rule for rule in (UNTRACED, OTTT, NDOT, NDOT_RELEASED, ALIF_UNTRACED, ALIF)}
