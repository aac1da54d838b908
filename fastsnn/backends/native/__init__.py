"""A core as backend: allocates outputs, passes operands. Cores differ in where they run."""

from .binary import BinaryKernels
from .empf import EMPFKernels
from .lif import LIFKernels
from .standardize import StandardizeKernels
from .stats import OSRKernels, OTSKernels
from .stgr import STGRKernels

__all__ = [
    "BinaryKernels",
    "EMPFKernels",
    "LIFKernels",
    "OSRKernels",
    "OTSKernels",
    "STGRKernels",
    "StandardizeKernels",
]
