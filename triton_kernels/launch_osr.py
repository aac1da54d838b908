"""Launches of the OSR kernels, with the signatures of the native cores (fastsnn/_cpu.pyi), as in launch.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import triton
from torch import Tensor

from . import osr
from .launch import AT_HALF_OCCUPANCY, INTERPRETED, OPTIONS, WARPS, bits

MERGE = {"BLOCK_P": 16, "BLOCK_C": 16, **OPTIONS}
CHARGED = 256  # programs whose u are taken together at once


def grid_of(sizes: tuple[int, ...], x: Tensor, widest: int = 16) -> tuple[tuple[int, int], dict[str, Any]]:
    """(parts, blocks of channels) and the kernels' block sizes: `widest` bytes of the state a thread, at most 8 where
    it has sums of several channels: these need registers, as neurons' values do."""
    parts, outer, channels, inner = sizes
    block_c = 32 if inner == 1 else 1
    bytes_a_thread = min(widest, 8) if inner == 1 else widest
    block_j = WARPS * 32 * bytes_a_thread // max(4, x.element_size()) // block_c
    if INTERPRETED:  # which pays for each program: few and large ones
        block_c = min(triton.next_power_of_2(channels), 256)
        block_j = min(triton.next_power_of_2(triton.cdiv(outer * inner, parts)), (1 << 16) // block_c)
    return (parts, triton.cdiv(channels, block_c)), {"BLOCK_J": block_j, "BLOCK_C": block_c, **OPTIONS}


def _check_workspace(wanted: bool, workspace: Tensor | None) -> None:
    """Raises ValueError where there are sums and no workspace for those of the parts."""
    if wanted and workspace is None:
        raise ValueError("workspace is None; the sums of parts need it")


def _forward(
    device: AbstractContextManager,
    sizes: tuple[int, ...],
    numbers: tuple[Any, ...],
    operands: tuple[Tensor | None, ...],
    run: Callable[..., None],
) -> None:
    """run((x, norm, moments, workspace), numbers, constants) is a pass over all elements: with statistics they are
    merged after it, and it runs again where the step's own may normalise."""
    eps, limit, strict, pooled, ends, share, step = numbers
    x, norm, moments, workspace = operands[0], osr.Norm(*operands[1:5]), osr.Settling(*operands[5:-1]), operands[-1]
    wanted, decides = moments.statistics_p is not None, strict or limit < math.inf
    _check_workspace(wanted, workspace)
    given, constants = (bits(eps), bits(share), step), {"POOLED": pooled, "ENDS": ends}
    with device:
        run((x, norm, moments, workspace), given, {"SUMS": wanted, "SECOND": False, **constants})
        if wanted:
            osr.osr_merge[(triton.cdiv(sizes[2], MERGE["BLOCK_C"]),)](
                *(norm, moments, workspace, *sizes, *given, bits(limit)),
                DECIDES=decides,
                STRICT=strict,
                **constants,
                **MERGE,
            )
        if decides:
            run((x, norm, moments, workspace), given, {"SUMS": False, "SECOND": True, **constants})


def osr_forward(device: AbstractContextManager, *given: Any) -> None:
    """given: parts, outer, channels, inner, three dtypes, the other numbers and the operands."""
    sizes, numbers, operands, y = given[:4], given[7:14], given[14:-1], given[-1]
    if y.numel() == 0:
        return
    grid, options = grid_of(sizes, y)

    def run(operands: tuple[Any, ...], numbers: tuple[int, ...], constants: dict[str, Any]) -> None:
        osr.osr_forward[grid](*operands, y, *sizes[1:], *numbers, **constants, **options)

    _forward(device, sizes, numbers, operands, run)


def osr_lif_forward(p: Any, device: AbstractContextManager, *given: Any) -> None:
    sizes, numbers, (first, potential_is_v) = given[:4], given[7:14], given[14:16]
    operands, (potential, *others) = given[16:32], given[32:]
    x = operands[0]
    if x.numel() == 0:
        return
    grid, options = grid_of(sizes, x, 8)
    count, q = p.rule.count, p.of(x)
    neuron = potential, tuple(others[:count]), *others[count : count + 3], tuple(others[count + 3 :])
    parameters = q.leak, q.gain, q.bias, q.threshold, q.v_reset, q.of_rule
    rule = {"FIRST": first, "GIVEN_V": potential_is_v or potential is None, "HARD": p.reset, "RULE": p.rule}

    def run(operands: tuple[Any, ...], numbers: tuple[int, ...], constants: dict[str, Any]) -> None:
        taken = options | (AT_HALF_OCCUPANCY if constants["SUMS"] else {})
        osr.osr_lif_forward[grid](*operands, *neuron, *sizes[1:], *numbers, *parameters, **constants, **rule, **taken)

    _forward(device, sizes, numbers, operands, run)


def osr_charge(p: Any, device: AbstractContextManager, *given: Any) -> None:
    """given: as osr_forward's, with v, u, u_moments and u_workspace in place of y."""
    sizes, numbers, operands = given[:4], given[7:14], given[14:-4]
    v, u, u_moments, u_workspace = given[-4:]
    if u.numel() == 0:
        return
    _check_workspace(True, u_workspace)
    one = max(4, u.element_size())  # u has sums, too
    grid, options = grid_of(sizes, operands[0], one if sizes[3] == 1 else 8)
    q = p.of(u)

    def run(operands: tuple[Any, ...], numbers: tuple[int, ...], constants: dict[str, Any]) -> None:
        taken = options | (AT_HALF_OCCUPANCY if constants["SUMS"] else {})
        neuron, parameters = (v, u, u_workspace), (q.leak, q.gain, q.bias, q.v_reset)
        osr.osr_charge[grid](*operands, *neuron, *sizes[1:], *numbers, *parameters, HARD=p.reset, **constants, **taken)

    _forward(device, sizes, numbers, operands, run)
    with device:
        osr.osr_charge_merge[(1,)](
            u_workspace, u_moments, *sizes, BLOCK_P=CHARGED, BLOCK_C=options["BLOCK_C"], **OPTIONS
        )


def _reduce(
    device: AbstractContextManager,
    sizes: tuple[int, ...],
    operands: tuple[Any, ...],
    g: Tensor,
    neuron: tuple[Tensor | None, ...],
    numbers: tuple[int, ...],
    surrogate: int | None,
) -> None:
    """operands: x, statistics, n, means, g_weight, g_bias, workspace."""
    x, statistics, *_, workspace = operands
    _check_workspace(True, workspace)
    grid, options = grid_of(sizes, x)
    parts, _, channels, _ = sizes
    with device:
        osr.osr_reduce[grid](
            *(x, g, statistics, workspace, *neuron, *sizes[1:], *numbers),
            LIF=surrogate is not None,
            SHAPE=surrogate or 0,
            **(options | AT_HALF_OCCUPANCY),
        )
        osr.osr_total[(triton.cdiv(channels, MERGE["BLOCK_C"]),)](*operands[1:], parts, channels, **MERGE)


def osr_reduce(device: AbstractContextManager, *given: Any) -> None:
    """given: parts, outer, channels, inner, two dtypes and the operands."""
    sizes, operands, g = given[:4], given[6:-1], given[-1]
    if g.numel():
        _reduce(device, sizes, operands, g, (None, None, None, None), (0, 0, 0, 0), None)


def osr_lif_reduce(p: Any, device: AbstractContextManager, *given: Any) -> None:
    sizes, operands, (g_spikes, keep, u, threshold, g_y) = given[:4], given[6:-5], given[-5:]
    if g_y.numel():
        q = p.of(g_y)
        numbers = (q.gain, q.threshold, q.height, q.slope)
        _reduce(device, sizes, operands, g_spikes, (u, keep, threshold, g_y), numbers, p.surrogate)


def osr_gradient(device: AbstractContextManager, *given: Any) -> None:
    """given: parts, outer, channels, inner, dtype and the operands."""
    sizes, operands = given[:4], given[5:]
    if operands[0].numel() == 0:
        return
    grid, options = grid_of(sizes, operands[0])
    with device:
        osr.osr_gradient[grid](*operands, *sizes[1:], **options)
