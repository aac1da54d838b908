"""Launches of the kernels, with the signatures of the native cores (fastsnn/_cpu.pyi): the device to run on stands
where those take threads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from ctypes import c_double, c_float, c_int32, c_int64
from types import SimpleNamespace
from typing import Any

import torch
import triton
from torch import Tensor

from fastsnn._cpu import LifParams as NativeParams
from fastsnn._cpu import rules as native_rules

from . import empf, lif, standardize
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


def bits(number: float) -> int:
    """Those of its float64: Triton rounds a float argument to float32, and an integer not."""
    return c_int64.from_buffer(c_double(number)).value


def bits_of_float32(number: float) -> int:
    """Those of the float32 next to it."""
    return c_int32.from_buffer(c_float(number)).value


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
            SimpleNamespace(of_rule=tuple(map(to, of_rule)), **{name: to(value) for name, value in numbers.items()})
            for to in (bits, bits_of_float32)
        )

    def of(self, x: Tensor) -> Any:
        """leak, gain, bias, threshold, v_reset, reset_grad, height, slope, of_rule: bits in the type of x's state."""
        return self._float64 if x.dtype == torch.float64 else self._float32


def block_of(n: int, x: Tensor, of_state: bool = False) -> int:
    """Neurons a program: 16 bytes of x, or of its state, for each thread. The interpreter pays for each program: there,
    few and large ones."""
    if INTERPRETED:
        return max(16, min(triton.next_power_of_2(n), 1 << 14))
    return WARPS * 32 * 16 // max(x.element_size(), 4 if of_state else 1)


def lif_forward(
    p: LifParams,
    device: AbstractContextManager,
    T: int,
    n: int,
    dtype: int,
    first: bool,
    potential_is_v: bool,
    x: Tensor,
    potential: Tensor | None,
    *operands: Tensor | None,
    workspace: Tensor | None = None,
) -> None:
    """operands: slots, keep, spikes, u_last, u_seq, v_last, v_seq, slots after."""
    if n == 0:
        return
    count = p.rule.count
    slots, others, after = operands[:count], operands[count : count + 6], operands[count + 6 :]
    block, q = block_of(n, x, of_state=True), p.of(x)
    with device:
        lif.lif_forward[(triton.cdiv(n, block),)](
            x,
            potential,
            slots,
            *others,
            after,
            workspace,
            T,
            n,
            q.leak,
            q.gain,
            q.bias,
            q.threshold,
            q.v_reset,
            q.of_rule,
            FIRST=first,
            GIVEN_V=potential_is_v or potential is None,
            HARD=p.reset,
            RULE=p.rule,
            ALIGNED=n % ALIGNED == 0,
            BLOCK=block,
            **AT_HALF_OCCUPANCY,
        )


def lif_backward_online(
    p: LifParams,
    device: AbstractContextManager,
    T: int,
    n: int,
    dtype: int,
    potential_is_v: bool,
    g_spikes: Tensor | None,
    keep: Tensor | None,
    u: Tensor | None,
    x: Tensor | None,
    potential: Tensor | None,
    *operands: Any,
    pulls: Tensor | None = None,
    g_local: Tensor | None = None,
) -> None:
    """operands: slots that drive spikes, g_v_last, these slots' gradients, g_v_seq, g_x, g_v_first, the gradients of
    these slots before the first step. pulls: of MPDR; g_local: where its part of the gradient goes alone."""
    if n == 0:
        return
    count = p.dynamics.count
    slots, g_x = operands[:count], operands[2 * count + 2]
    block, q = block_of(n, g_x, of_state=True), p.of(g_x)
    with device:
        lif.lif_backward_online[(triton.cdiv(n, block),)](
            g_spikes,
            keep,
            u,
            x,
            potential,
            slots,
            g_x,
            pulls,
            g_local,
            T,
            n,
            q.leak,
            q.gain,
            q.bias,
            q.threshold,
            q.v_reset,
            q.height,
            q.slope,
            q.of_rule,
            GIVEN_V=potential_is_v or potential is None,
            HARD=p.reset,
            SHAPE=p.surrogate,
            RULE=p.dynamics,
            ALIGNED=n % ALIGNED == 0,
            BLOCK=block,
            **OPTIONS,
        )


def lif_backward_bptt(
    p: LifParams,
    device: AbstractContextManager,
    T: int,
    n: int,
    dtype: int,
    potential_is_v: bool,
    g_spikes: Tensor | None,
    keep: Tensor | None,
    u: Tensor | None,
    x: Tensor | None,
    potential: Tensor | None,
    *operands: Any,
    pulls: Tensor | None = None,
) -> None:
    """operands, pulls: as in `lif_backward_online`."""
    if n == 0:
        return
    count = p.dynamics.count
    g_v_last, g_slots_last = operands[count], operands[count + 1 : 2 * count + 1]
    g_v_seq, g_x, g_v_first, *g_slots_first = operands[2 * count + 1 :]
    block, q = block_of(n, g_x, of_state=True), p.of(g_x)
    with device:
        lif.lif_backward_bptt[(triton.cdiv(n, block),)](
            g_spikes,
            keep,
            u,
            g_v_last,
            g_slots_last,
            g_v_seq,
            g_x,
            g_v_first,
            tuple(g_slots_first),
            pulls,
            T,
            n,
            q.leak,
            q.gain,
            q.threshold,
            q.v_reset,
            q.reset_grad,
            q.height,
            q.slope,
            q.of_rule,
            HARD=p.reset,
            SHAPE=p.surrogate,
            RULE=p.dynamics,
            ALIGNED=n % ALIGNED == 0,
            BLOCK=block,
            **OPTIONS,
        )


def standardize_forward(
    device: AbstractContextManager, rows: int, cols: int, dtype: int, eps: float, *operands: Tensor
) -> None:
    with device:
        standardize.standardize_forward[(rows,)](*operands, cols, bits(eps), BLOCK=BLOCK, **AT_HALF_OCCUPANCY)


def standardize_backward(
    device: AbstractContextManager, rows: int, cols: int, dtype: int, eps: float, *operands: Tensor
) -> None:
    with device:
        standardize.standardize_backward[(rows,)](*operands, cols, BLOCK=BLOCK, **AT_HALF_OCCUPANCY)


def _empf_blocks(kernel: Any, device: AbstractContextManager, given: tuple[Any, ...], *, steps: bool = False) -> None:
    """A program a block of neurons. given: parts, T, outer, channels, inner, dtype and the operands, x first."""
    _, T, outer, channels, inner, _, *operands = given
    n = outer * channels * inner
    if n == 0:
        return
    block = block_of(n, operands[0], of_state=n % ALIGNED != 0)
    with device:
        kernel[(triton.cdiv(n, block),)](*operands, *([T] if steps else []), n, channels, inner, BLOCK=block, **OPTIONS)


def _empf_parts(kernel: Any, device: AbstractContextManager, given: tuple[Any, ...], *, steps: bool = False) -> None:
    """A program one part of one channel. given: as above."""
    parts, T, outer, channels, inner, _, *operands = given
    n = outer * channels * inner
    if n == 0:
        return
    block = block_of(triton.cdiv(outer * inner, parts), operands[0]) if INTERPRETED else SUM_BLOCK
    with device:
        kernel[(channels * parts,)](
            *operands, *([T] if steps else []), n, channels, inner, parts, BLOCK=block, **OPTIONS
        )


def empf_forward(device: AbstractContextManager, *given: Any) -> None:
    _empf_blocks(empf.empf_forward, device, given, steps=True)


def empf_backward(device: AbstractContextManager, *given: Any) -> None:
    _empf_parts(empf.empf_backward, device, given, steps=True)


def empf_potential(device: AbstractContextManager, *given: Any) -> None:
    _empf_parts(empf.empf_potential, device, given)


def empf_norm_forward(device: AbstractContextManager, *given: Any) -> None:
    _empf_blocks(empf.empf_norm_forward, device, given)


def empf_norm_sums(device: AbstractContextManager, *given: Any) -> None:
    _empf_parts(empf.empf_norm_sums, device, given)


def empf_norm_backward(device: AbstractContextManager, *given: Any) -> None:
    _empf_parts(empf.empf_norm_backward, device, given)
