"""Fused kernels for online training of spiking neural networks in PyTorch."""

from importlib.metadata import version

__version__ = version("fastsnn")

from . import backends, data, deploy, functional, online, surrogate
from .backends import BackendError, use_backend
from .nn import (
    LIF,
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
    "LIF",
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
    "online",
    "reset",
    "states",
    "surrogate",
    "use_backend",
]
