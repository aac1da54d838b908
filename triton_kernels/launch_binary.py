"""Launches of the binary kernels, as in launch.py."""

from __future__ import annotations

from math import prod
from typing import Any

import triton
from torch import Tensor

from . import binary, launch
from .launch import INTERPRETED, block_of
from .operands import Call, cdiv

FEW = 8  # output positions up to which a tile would mostly be empty
OUTPUTS = 16  # of a block
OPTIONS = launch.OPTIONS | {"num_warps": 8}


def binarize_forward(call: Call) -> None:
    block = block_of(call.cols, call.weight)
    call.run(binary.binarize_forward, call.rows, SCALED=call.scaled, BLOCK=block, **launch.OPTIONS)


def binarize_backward(call: Call) -> None:
    call.n = call.rows * call.cols
    block = block_of(call.n, call.weight)
    call.run(binary.binarize_backward, cdiv(call.n, block), BLOCK=block, **launch.OPTIONS)


def _few(positions: int, outputs: int, bits: int) -> tuple[Any, tuple[int, int], dict[str, Any]]:
    """Kernel, grid and options where weights are read once."""
    return binary.packed_few, (cdiv(outputs, OUTPUTS), positions), {"STEPS": 8 * bits} | OPTIONS


def _tiles(positions: int, outputs: int, x: Tensor) -> tuple[Any, tuple[int, int], dict[str, Any]]:
    """Kernel, grid and options where tiles fill; smaller ones without tensor cores."""
    tile_p, tile_o = 64 if x.element_size() == 2 else 32, 32
    if INTERPRETED:  # which pays for each program: few and large ones
        tile_p, tile_o = (max(OUTPUTS, min(triton.next_power_of_2(n), 512)) for n in (positions, outputs))
    grid = (cdiv(positions, tile_p), cdiv(outputs, tile_o))
    # a third stage of loads takes registers that float32 spikes lack
    return binary.packed_tile, grid, {"TILE_P": tile_p, "TILE_O": tile_o, "num_stages": 2} | OPTIONS


PLANES = ("in_plane", "out_plane", "kernel", "stride", "padding", "dilation")


def packed_product(call: Call) -> None:
    positions = call.batch * prod(call.out_plane)
    few = positions <= FEW
    run, grid, options = _few(positions, call.outputs, call.bits) if few else _tiles(positions, call.outputs, call.x)
    for name in PLANES:
        name_of_side = name.removesuffix("_plane")
        height, width = getattr(call, name)
        vars(call).update({f"{name_of_side}_h": height, f"{name_of_side}_w": width})
    for array in ("x", "y"):
        strides = getattr(call, f"{array}_strides")
        vars(call).update(zip((f"{array}_n", f"{array}_c", f"{array}_h", f"{array}_w"), strides, strict=True))
    call.run(run, *grid, BITS=call.bits, NEIGHBOURS=call.x_strides[1] == 1, **options)
