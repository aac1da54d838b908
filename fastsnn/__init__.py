"""Fused kernels for online training of spiking neural networks in PyTorch."""

from importlib.metadata import version

__version__ = version("fastsnn")

from . import backends, data, deploy, functional, models, online, optim, surrogate
from .backends import BackendError, use_backend
from .nn import (
    EMPF,
    LIF,
    OSRLIF,
    SECA,
    BinaryConv2d,
    BinaryLinear,
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
    "EMPF",
    "LIF",
    "OSRLIF",
    "SECA",
    "BackendError",
    "BinaryConv2d",
    "BinaryLinear",
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
    "deploy",
    "detach",
    "fold",
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
