"""Every family's kernels on a core: they allocate outputs and pass operands. Each file registers its family."""

from . import binary, empf, lif, osr, ots, standardize, stgr

__all__ = ["binary", "empf", "lif", "osr", "ots", "standardize", "stgr"]
