"""Fused kernels for online training of spiking neural networks in PyTorch."""

from importlib.metadata import version

__version__ = version("fastsnn")

from . import backends, data, deploy, functional, models, online, optim, surrogate
from .backends import BackendError, use_backend
from .nn import (
    EMPF,
    LIF,
    SECA,
    BinaryConv2d,
    BinaryLinear,
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
    "BinaryConv2d",
    "BinaryLinear",
    "Scale",
    "TraceError",
    "TracedSpikes",
    "WSConv2d",
    "WSLinear",
    "__version__",
    "backends",
    "data",
    "deploy",
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
