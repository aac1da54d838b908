"""Fused kernels for online training of spiking neural networks in PyTorch."""

from importlib.metadata import version

__version__ = version("fastsnn")

from . import backends, data, functional, models, online, optim, surrogate
from .backends import BackendError, use_backend
from .nn import (
    EMPF,
    LIF,
    SECA,
    Scale,
    TracedSpikes,
    TraceError,
    WSConv2d,
    WSLinear,
    detach,
    load_states,
    reset,
    states,
)

__all__ = [
    "EMPF",
    "LIF",
    "SECA",
    "BackendError",
    "Scale",
    "TraceError",
    "TracedSpikes",
    "WSConv2d",
    "WSLinear",
    "__version__",
    "backends",
    "data",
    "detach",
    "functional",
    "load_states",
    "models",
    "online",
    "optim",
    "reset",
    "states",
    "surrogate",
    "use_backend",
]
