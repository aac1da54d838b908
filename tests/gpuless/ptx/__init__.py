"""PTX, as nvcc and Triton emit it for sm_80, run on the CPU."""

from .parse import PtxError, entry_names, parse
from .run import Counts, Launch, by_address, pack, run_ptx
from .translate import translate

__all__ = ["Counts", "Launch", "PtxError", "by_address", "entry_names", "pack", "parse", "run_ptx", "translate"]
