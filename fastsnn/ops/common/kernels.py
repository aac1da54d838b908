"""What the kernels of every family on one core have."""

from __future__ import annotations

import inspect
import itertools
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...backends.core import Core
from ...errors import BackendError
from ...rules import RULES
from ...surrogate.formulas import SHAPES
from ...types import LIFParams
from .interface import INTERFACE


class Codes(dict[torch.dtype, int]):
    """Numbers by which cores know dtypes. Raises TypeError for another one."""

    def __missing__(self, dtype: torch.dtype) -> int:
        raise TypeError(f"a tensor has dtype {dtype}; kernels take {', '.join(map(str, self))}")


DTYPES = Codes({torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3})
SMALLEST_BLOCK = 256  # neurons that a block or program of a sum over all of them takes, or more


class Family:
    """A family's kernels on one core, which must declare them as INTERFACE has them (ImportError). CALLS: how the
    names of those begin."""

    CALLS: ClassVar[tuple[str, ...]]

    def __init__(self, core: Core) -> None:
        declared = {kernel: takes for kernel, takes in INTERFACE.items() if kernel.startswith(self.CALLS)}
        self.NAME, self._core = core.name, core.checked(declared)
        self._where, self._blocks = core.where, core.blocks


class NeuronFamily(Family):
    """A family whose neurons follow a rule."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        if self._core is not None:
            check_rules(self._core)
        self._cached = f"_native_{core.name}"

    def _params(self, p: LIFParams) -> Any:
        """As the core takes them; p keeps them."""
        native = p.__dict__.get(self._cached)
        if native is not None:
            return native
        if p.kind.kernel not in self._core.rules:
            raise BackendError(
                f"the {self.NAME} backend has no step {p.kind.kernel!r} of rule {p.rule!r}; it has "
                f"{', '.join(self._core.rules)}. Use another backend: fastsnn.use_backend('reference')"
            )
        native = p.__dict__[self._cached] = self._core.LifParams(
            leak=p.leak,
            gain=p.gain,
            bias=p.bias,
            threshold=p.threshold,
            v_reset=p.v_start,
            reset_grad=p.reset_grad,
            height=p.height,
            slope=p.slope,
            reset=p.v_reset is not None,
            rule=list(self._core.rules).index(p.kind.kernel),
            surrogate=SHAPES.index(p.shape),
            of_rule=p.of_rule,
        )
        return native

    def _sums_of_blocks(self, like: Tensor, *sizes: int) -> Tensor | None:
        """Memory for two sums of every block, for neurons of the last size; None where the core has no blocks."""
        if self._blocks == 1:
            return None
        *rows, n = sizes
        return like.new_empty((*rows, -(-n // SMALLEST_BLOCK), 2), dtype=torch.float64)


def check_rules(core: Any) -> None:
    """Raises ImportError, naming rule, slot and file, where a core's step of a rule has other slots or parameters than
    fastsnn.rules says. A rule whose step it lacks is refused when it is to run."""
    for rule in RULES.values():
        here = f"rule {rule.name!r} ({inspect.getsourcefile(type(rule))})"
        there = f"step {rule.kernel!r} of {core.__name__}"
        if rule.kernel not in core.rules:
            continue
        slots, parameters = core.rules[rule.kernel]
        for own, its in itertools.zip_longest(rule.slots, slots):
            mine = own and own[:3]
            if mine != its:
                what = "(name, drives, every_step)"
                raise ImportError(f"{here} declares slot {mine} {what} where {there} has {its}")
        if parameters != len(rule.parameters):
            raise ImportError(f"{here} declares {len(rule.parameters)} parameters where {there} has {parameters}")
