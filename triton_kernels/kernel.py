"""Kernels whose launches after the first cost half of Triton's own: they skip its binder, which asks every argument
again what the kernel is specialised on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

import triton
from triton.compiler import CompiledKernel
from triton.runtime import driver
from triton.runtime.jit import JITFunction


def kinds(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What Triton may specialise a kernel on: no pointer, a type and an aligned one; an integer that is 1, and one
    that is a multiple of 16; of a tuple, its elements."""
    return tuple(
        [
            None
            if argument is None
            else (argument == 1, argument & 15 == 0)
            if argument.__class__ is int
            else argument and kinds_of_tuple(argument)
            if isinstance(argument, tuple)
            else (argument.dtype, argument.data_ptr() & 15 == 0)
            for argument in arguments
        ]
    )


def kinds_of_tuple(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arrays as above. Integers themselves: in a tuple they have no declared type, and the size decides."""
    return arguments if arguments[0].__class__ is int else kinds(arguments)


class Kernel(JITFunction):
    """A kernel whose tensors and integers come by position, and its constants, behind them, and options by name."""

    compiled: dict[Any, CompiledKernel]
    constants: list[str]
    specialised: Callable[[tuple[Any, ...]], tuple[Any, ...]]  # those of the arguments by position that can matter

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return partial(self.launch, grid)

    def launch(self, grid: tuple[int, ...], *arguments: Any, **named: Any) -> None:
        key = driver.active.get_current_device(), kinds(self.specialised(arguments)), *named, *named.values()
        compiled = self.compiled.get(key)
        if compiled is None:
            compiled = self.run(*arguments, grid=grid, warmup=False, **named)
            if isinstance(compiled, CompiledKernel):
                self.compiled[key] = compiled
            return
        compiled[(*grid, 1, 1)[:3]](*arguments, *[named[name] for name in self.constants])


def kernel(function: Any = None, **options: Any) -> Any:
    """As triton.jit, for a kernel that is launched."""
    if function is None:
        return partial(kernel, **options)
    made = triton.jit(function, **options)
    if isinstance(made, JITFunction):  # not interpreted
        made.__class__, made.compiled = Kernel, {}
        made.constants = [parameter.name for parameter in made.params if parameter.is_constexpr]
        # an integer of a declared type that is not to be specialised cannot
        made.specialised = itemgetter(
            *[
                parameter.num
                for parameter in made.params
                if not (parameter.is_constexpr or (parameter.do_not_specialize and parameter.annotation_type))
            ]
        )
    return made
