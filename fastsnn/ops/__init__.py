"""Operations as pure functions with explicit state. A folder is a family: checks, autograd and entry (`__init__`), its
kernels on a core (`kernels`), one call of them outside autograd (`passes`), its operators for graphs (`graph`)."""

import importlib
import sys

from .. import stats, types

FAMILIES = ("binary", "empf", "lif", "osr", "ots", "standardize", "stgr")

for _module in (stats, types):  # pickles of fastsnn 0.1 name their classes by these paths
    sys.modules[f"{__name__}.{_module.__name__.rpartition('.')[2]}"] = _module

for _family in FAMILIES:
    importlib.import_module(f".{_family}.kernels", __name__)  # registers them
