"""Launches of the kernels, of calls as the native cores take them: a launch chooses the grid and the constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from fastsnn._cpu import LifParams as NativeParams
from fastsnn._cpu import rules as native_rules

from . import empf, lif, standardize
from .operands import Call, bits, bits_of_float32, cdiv
from .rules import RULES

BLOCK = 1024
WARPS = 4
SUM_BLOCK = WARPS * 32  # float64 sums take twice the registers, and neurons of a channel have gaps
OPTIONS = {"num_warps": WARPS, "enable_fp_fusion": False}
# with 64 registers a thread half of the threads that an SM can hold are resident; where a program sums over its block,
# the compiler left to itself takes fewer registers and spills
AT_HALF_OCCUPANCY = OPTIONS | {"maxnreg": 64}
ALIGNED = 16  # neurons: then Triton knows that every row of n begins at 16 bytes
INTERPRETED = not isinstance(lif.lif_forward, triton.JITFunction)


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


def _run(call: Call, kernel: Any, like: Tensor, rule: Any, **named: Any) -> None:
    """A program a block of neurons. like: a tensor of the input's type."""
    block = block_of(call.n, like, of_state=True)
    named |= {"HARD": call.p.reset, "RULE": rule, "ALIGNED": call.n % ALIGNED == 0, "BLOCK": block}
    call.run(kernel, cdiv(call.n, block), neuron=call.p.of(like), **named)


def lif_forward(call: Call) -> None:
    call.workspace = None
    forward(call)


def forward(call: Call) -> None:
    """workspace: of MPDR, else None."""
    start = {"FIRST": call.first, "GIVEN_V": given_v(call)}
    _run(call, lif.lif_forward, call.x, call.p.rule, **start, **AT_HALF_OCCUPANCY)


def lif_backward_online(call: Call) -> None:
    call.pulls = call.g_local = None
    backward_online(call)


def backward_online(call: Call) -> None:
    """pulls: of MPDR; g_local: where its part of the gradient goes alone; else None."""
    constants = {"GIVEN_V": given_v(call), "SHAPE": call.p.surrogate, **OPTIONS}
    _run(call, lif.lif_backward_online, call.g_x, call.p.dynamics, **constants)


def lif_backward_bptt(call: Call) -> None:
    call.pulls = None
    backward_bptt(call)


def backward_bptt(call: Call) -> None:
    """pulls: as above."""
    _run(call, lif.lif_backward_bptt, call.g_x, call.p.dynamics, SHAPE=call.p.surrogate, **OPTIONS)


def standardize_forward(call: Call) -> None:
    call.eps = bits(call.eps)
    call.run(standardize.standardize_forward, call.rows, BLOCK=BLOCK, **AT_HALF_OCCUPANCY)


def standardize_backward(call: Call) -> None:
    call.run(standardize.standardize_backward, call.rows, BLOCK=BLOCK, **AT_HALF_OCCUPANCY)


def _empf_blocks(kernel: Any, call: Call, like: Tensor) -> None:
    """A program a block of neurons."""
    call.n = call.outer * call.channels * call.inner
    block = block_of(call.n, like, of_state=call.n % ALIGNED != 0)
    call.run(kernel, cdiv(call.n, block), BLOCK=block, **OPTIONS)


def _empf_parts(kernel: Any, call: Call, like: Tensor) -> None:
    """A program one part of one channel."""
    each = call.outer * call.inner
    call.n = each * call.channels
    block = block_of(cdiv(each, call.parts), like) if INTERPRETED else SUM_BLOCK
    call.run(kernel, call.channels * call.parts, BLOCK=block, **OPTIONS)


def empf_forward(call: Call) -> None:
    _empf_blocks(empf.empf_forward, call, call.x)


def empf_backward(call: Call) -> None:
    _empf_parts(empf.empf_backward, call, call.g_spikes)


def empf_potential(call: Call) -> None:
    _empf_parts(empf.empf_potential, call, call.x)


def empf_norm_forward(call: Call) -> None:
    _empf_blocks(empf.empf_norm_forward, call, call.m)


def empf_norm_sums(call: Call) -> None:
    _empf_parts(empf.empf_norm_sums, call, call.m)


def empf_norm_backward(call: Call) -> None:
    _empf_parts(empf.empf_norm_backward, call, call.m)
