"""The native CPU core, `fastsnn._cpu`, as backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import native

try:
    from .. import _cpu
except ImportError as error:
    _cpu = None  # type: ignore[assignment]
    _import_error = str(error)


def refusal(device: torch.device) -> str | None:
    """Why the core cannot run on tensors of `device`; None where it can."""
    if device.type != "cpu":
        return f"the cpu backend takes CPU tensors and this one is on {device}"
    if _cpu is None:
        in_source = (Path(__file__).parents[2] / "setup.py").exists()
        return (
            f"the native core is not installed ({_import_error}); reinstall fastsnn with a C++17 compiler "
            "and without FASTSNN_PURE_PYTHON" + (", or start Python outside its source folder" if in_source else "")
        )
    return None


def _threads(_: Tensor) -> int:
    return torch.get_num_threads()


# the T loop runs in cache, so a sequence's potentials are recomputed from x
_LIF = native.LIFKernels("cpu", _cpu, _threads, saves_u=False)
KERNELS: dict[str, Any] = {
    "lif": _LIF,
    "mpdr": _LIF,
    "standardize": native.StandardizeKernels("cpu", _cpu, _threads),
    "empf": native.EMPFKernels("cpu", _cpu, _threads),
    "binary": native.BinaryKernels("cpu", _cpu, _threads),
    "osr": native.OSRKernels(_LIF, _cpu, _threads),
    "ots": native.OTSKernels(_LIF, _cpu, _threads),
    "stgr": native.STGRKernels("cpu", _cpu, _threads),
}
