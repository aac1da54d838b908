"""Fused kernels for online training of spiking neural networks in PyTorch."""

from importlib.metadata import version

__version__ = version("fastsnn")

from . import backends, data, functional, online, surrogate
from .backends import BackendError, use_backend
from .nn import (
    LIF,
    OSRLIF,
    OSR1d,
    OSR2d,
    OSR3d,
    Scale,
    TracedSpikes,
    TraceError,
    WSConv2d,
    WSLinear,
    convert_batchnorm,
    detach,
    fold,
    load_states,
    reset,
    states,
)

__all__ = [
    "LIF",
    "OSRLIF",
    "BackendError",
    "OSR1d",
    "OSR2d",
    "OSR3d",
    "Scale",
    "TraceError",
    "TracedSpikes",
    "WSConv2d",
    "WSLinear",
    "__version__",
    "backends",
    "convert_batchnorm",
    "data",
    "detach",
    "fold",
    "functional",
    "load_states",
    "online",
    "reset",
    "states",
    "surrogate",
    "use_backend",
]
