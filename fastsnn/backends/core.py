"""A core of kernels, as families see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor


class Core(NamedTuple):
    """The core of one backend. module: None where it is not installed. where(x): where it runs for x.

    saves_u: a sequence's forward stores potentials for its backward. blocks: how many a sum over channels makes use of,
    in parts that lie in memory where there are several.
    """

    name: str
    module: Any
    where: Callable[[Tensor], Any]
    saves_u: bool
    blocks: int = 1
