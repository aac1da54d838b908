"""Calls of launches: by name, as the native core declares what every kernel takes (csrc/core), and checked by it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from ctypes import c_double, c_float, c_int32, c_int64
from operator import itemgetter
from typing import Any

import triton.language as tl

from fastsnn._cpu import checks

kernels = getattr(checks, "kernels", {})  # name -> what it takes, in words
CPU, CUDA = 1, 2  # types of a device, as DLPack numbers them
PARAMETERS = ("leak", "gain", "bias", "threshold", "v_reset", "reset_grad", "height", "slope", "of_rule")  # of a neuron
NOTHING: dict[str, Any] = {}


def cdiv(n: int, size: int) -> int:
    """As triton.cdiv, which is made for kernels too and takes two microseconds."""
    return -(-n // size)


def bits(number: float) -> int:
    """Those of its float64: Triton rounds a float argument to float32, and an integer not."""
    return c_int64.from_buffer(c_double(number)).value


def bits_of_float32(number: float) -> int:
    """Those of the float32 next to it."""
    return c_int32.from_buffer(c_float(number)).value


@functools.cache
def arguments_of(function: Callable[..., Any]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """What a kernel takes beside its constants, out of a call: `x_p` is operand x, `leak` the neuron's p.leak."""
    parameters = inspect.signature(function).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.annotation is not tl.constexpr]
    return itemgetter(*[f"p.{name}" if name in PARAMETERS else name.removesuffix("_p") for name in names])


class Call:
    """The arguments of a call, by name. p: parameters of the neuron (LifParams); where: the device to run on."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.__dict__ = given

    def run(self, kernel: Any, *grid: int, neuron: dict[str, Any] = NOTHING, **constants: Any) -> None:
        """Launches a kernel with those arguments that it names. neuron: parameters, as LifParams.of has them."""
        given = self.__dict__
        given |= neuron
        kernel[grid](*arguments_of(kernel.fn)(given), **constants)


def checked(kernel: str, launch: Callable[[Call], None]) -> Callable[..., None]:
    """The launch of a kernel, which raises TypeError or ValueError, naming the operand, before it reaches the
    device."""
    check = getattr(checks, kernel)
    names = [declared.partition(": ")[0] for declared in kernels[kernel].split(", ")]

    def run(*args: Any, **given: Any) -> None:
        given |= zip(names, args, strict=False)
        p, device = given.get("p"), given["where"]
        given["where"] = (CPU, 0) if device.idx < 0 else (CUDA, device.idx)
        if p is not None:
            given["p"] = p.native
        if check(**given):
            given["p"] = p
            with device:
                launch(Call(given))

    return run
