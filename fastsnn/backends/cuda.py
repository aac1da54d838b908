"""The native CUDA core, `fastsnn._cuda`, as backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .core import Core

try:
    from .. import _cuda
except ImportError as error:
    _cuda = None  # type: ignore[assignment]
    _import_error = str(error)


def refusal(device: torch.device) -> str | None:
    """Why the core cannot run on tensors of `device`; None where it can."""
    if device.type != "cuda":
        return f"the cuda backend takes CUDA tensors and this one is on {device}"
    if _cuda is None:
        return (
            f"the CUDA core is not installed ({_import_error}); reinstall fastsnn where nvcc is on PATH and the GPU is "
            "visible (FASTSNN_CUDA=1 builds for every architecture)"
        )
    if not _cuda.driver_version():
        return "the CUDA core needs an NVIDIA GPU with its driver, and no NVIDIA driver is there"
    reason = _cuda.refusal(device.index or 0)
    if reason:
        return (
            f"the CUDA core cannot run on {device}: {reason}. It holds machine code for {_cuda.archs}: update the "
            "driver, or reinstall fastsnn with FASTSNN_CUDA_ARCHS naming this device's architecture"
        )
    return None


def _stream(x: Tensor) -> tuple[int, int]:
    """The tensor's device and torch's current stream there."""
    index = x.get_device()
    return index, torch._C._cuda_getCurrentRawStream(index)


# a thread walks T once, so the backward through time reads the potentials that the forward stored
CORE = Core("cuda", _cuda, _stream, saves_u=True, blocks=1024)
KERNELS: dict[str, Any] = {}  # by family
