"""PTX, as nvcc and Triton emit it for sm_80, run on the CPU."""

from .parse import PtxError, entry_names
from .run import Counts, load, run_ptx
from .translate import translate

__all__ = ["Counts", "PtxError", "entry_names", "load", "run_ptx", "translate"]
