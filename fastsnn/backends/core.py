"""A core of kernels, as families see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import zip_longest
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

    def checked(self, signatures: Mapping[str, str]) -> Any:
        """Its module, of which a family calls these kernels: name -> what it passes, in the core's words
        (fastsnn/_cpu.pyi).

        Raises ImportError, naming the file, where a kernel takes something else: the core is of another fastsnn.
        """
        for kernel, passed in signatures.items() if self.module is not None else ():
            takes = getattr(self.module, "kernels", {}).get(kernel, "")
            for its, ours in zip_longest(takes.split(", "), passed.split(", "), fillvalue="nothing more"):
                if its != ours:
                    raise ImportError(
                        f"{self.module.__file__} was built for another fastsnn: its {kernel} takes "
                        f"{its or 'nothing'!r} where fastsnn passes {ours!r}. "
                        "Build it again: `pip install .` in fastsnn's source folder"
                    )
        return self.module
