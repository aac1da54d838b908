"""The native CPU core, `fastsnn._cpu`, as backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .core import Core

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
CORE = Core("cpu", _cpu, _threads, saves_u=False)
KERNELS: dict[str, Any] = {}  # by family
