"""The Triton kernels, `fastsnn._triton`, as backend."""

from __future__ import annotations

from typing import Any

import torch

from .core import Core

_core: Any = None
_version: tuple[int, ...] = ()
try:
    import triton

    from .._triton import core

    _core, _version = core, tuple(map(int, triton.__version__.split(".")[:2]))
except ImportError as error:
    _import_error = str(error)

VERSION = (3, 4)  # named tuples inside kernels
CAPABILITY = (7, 5)
NEEDS_CUDA = (
    "the triton backend takes CUDA tensors and this one is on cpu; "
    "for tests set TRITON_INTERPRET=1 before Python starts"
)


def refusal(device: torch.device) -> str | None:
    """Why the kernels cannot run on tensors of `device`; None where they can."""
    if _core is None:
        return (
            f"triton is not installed, or not the native core, which checks its operands ({_import_error}); on Linux: "
            "pip install triton, and reinstall fastsnn with a C++17 compiler and without FASTSNN_PURE_PYTHON"
        )
    if _version < VERSION:
        return (
            f"triton {_dotted(_version)} is installed and the kernels need {_dotted(VERSION)}, which torch 2.8 brings"
        )
    if device.type == "cpu":
        return None if _core.INTERPRETED else NEEDS_CUDA
    if device.type != "cuda":
        return f"the triton backend takes CUDA tensors and this one is on {device}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device: `python -c 'import torch; torch.cuda.init()'` says why"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        return (
            f"{torch.cuda.get_device_name(device)} has compute capability {_dotted(capability)} and the triton "
            f"backend needs {_dotted(CAPABILITY)}"
        )
    return None


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


# recomputing u in reverse would need memory for it: a sequence's potentials are saved
CORE = Core("triton", _core, torch.cuda.device_of, saves_u=True, blocks=1024)
KERNELS: dict[str, Any] = {}  # by family
