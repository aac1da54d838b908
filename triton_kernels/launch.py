"""What launches of all families share. A launch takes a call as the native cores take it, and chooses the grid and the
constants; those of a family stand behind its kernels, in LAUNCHES."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from fastsnn._cpu import LifParams as NativeParams
from fastsnn._cpu import rules as native_rules

from .arguments import number
from .operands import Call, bits, bits_of_float32
from .rules import RULES

WARPS = 4
SUM_BLOCK = WARPS * 32  # float64 sums take twice the registers, and neurons of a channel have gaps
OPTIONS = {"num_warps": WARPS, "enable_fp_fusion": False}
# with 64 registers a thread half of the threads that an SM can hold are resident; where a program sums over its block,
# the compiler left to itself takes fewer registers and spills
AT_HALF_OCCUPANCY = OPTIONS | {"maxnreg": 64}
ALIGNED = 16  # neurons: then Triton knows that every row of n begins at 16 bytes
INTERPRETED = not isinstance(number, triton.JITFunction)


# name -> slots and number of parameters, as a native core has them
rules = {name: (tuple(slot[:3] for slot in rule.slots), len(rule.parameters)) for name, rule in RULES.items()}


class LifParams:
    """Parameters of a rule, ready for a launch. dynamics: the rule that goes back in time."""

    def __init__(self, reset: bool, rule: int, surrogate: int, of_rule: Sequence[float], **numbers: float) -> None:
        self.reset, self.surrogate, self.rule = reset, surrogate, [*RULES.values()][rule]
        self.dynamics = RULES[self.rule.dynamics]
        code = [*native_rules].index(self.rule.name)
        self.native = NativeParams(reset=reset, rule=code, surrogate=surrogate, of_rule=of_rule, **numbers)
        self._float64, self._float32 = (
            {"p.of_rule": tuple(map(to, of_rule)), **{f"p.{name}": to(value) for name, value in numbers.items()}}
            for to in (bits, bits_of_float32)
        )

    def of(self, x: Tensor) -> dict[str, Any]:
        """leak, gain, bias, threshold, v_reset, reset_grad, height, slope, of_rule: bits in the type of x's state, each
        by its name behind \"p.\"."""
        return self._float64 if x.dtype == torch.float64 else self._float32


def block_of(n: int, x: Tensor, of_state: bool = False) -> int:
    """Neurons a program: 16 bytes of x, or of its state, for each thread. The interpreter pays for each program: there,
    few and large ones."""
    if INTERPRETED:
        return max(16, min(triton.next_power_of_2(n), 1 << 14))
    return WARPS * 32 * 16 // max(x.element_size(), 4 if of_state else 1)


def given_v(call: Call) -> bool:
    """Whether the potential before the first step is one after its reset."""
    return call.potential_is_v or call.potential is None


def need_workspace(workspace: Tensor | None) -> None:
    """Raises ValueError where there is none for the sums of blocks or parts."""
    if workspace is None:
        raise ValueError("workspace is None; the sums of blocks and parts need it")
