"""Every family's kernels on a core: they allocate outputs and pass operands. Each file registers its family."""

from . import binary, empf, lif, standardize, stats, stgr

__all__ = ["binary", "empf", "lif", "standardize", "stats", "stgr"]
