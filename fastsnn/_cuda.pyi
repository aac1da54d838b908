from collections.abc import Callable

from ._cpu import LifParams as LifParams
from ._cpu import kernels as kernels
from ._cpu import rules as rules

version: str
archs: str

def __getattr__(name: str) -> Callable[..., bool]: ...  # the kernels, as in _cpu
def driver_version() -> int: ...
def refusal(device: int) -> str: ...
