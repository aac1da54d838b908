"""Operations as pure functions with explicit state, per family: checks, autograd and entry."""

import sys

from .. import kernels as kernels
from .. import stats, types

for _module in (stats, types):  # pickles of fastsnn 0.1 name their classes by these paths
    sys.modules[f"{__name__}.{_module.__name__.rpartition('.')[2]}"] = _module
