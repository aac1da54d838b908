from collections.abc import Callable, Sequence

version: str
openmp: bool

class LifParams:
    """A neuron's parameters, as core/arguments.h has them."""

    def __init__(self, **parameters: float | Sequence[float]) -> None: ...

# by name, in the order of their codes: slots as (name, drives, every_step), and the number of parameters
rules: dict[str, tuple[tuple[tuple[str, bool, bool], ...], int]]
# name -> what the kernel takes, as its argument struct in csrc/core declares it and fastsnn/ops/common/interface.py
# too: `name: type`; > is written, ? may be None, * is a tuple of as many as the rule says; where: threads, or (device,
# stream)
kernels: dict[str, str]

# the kernels: False where there was nothing to do; an error names the argument and what is needed
def __getattr__(name: str) -> Callable[..., bool]: ...
def isas() -> list[str]: ...
def isa() -> str: ...
def choose_isa(isa: str) -> bool: ...

class checks:
    """The kernels, which check their arguments and run nothing. where: DLPack's type of the device, its index."""

    kernels: dict[str, str]
