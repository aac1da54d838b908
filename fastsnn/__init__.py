"""Fused kernels for online training of spiking neural networks in PyTorch.

torch is imported with the first name that is asked for, so that the command line answers at once; where torch is there
already, with the package: torch.export.load finds fastsnn's operators after `import torch, fastsnn`.
"""

import importlib.metadata
import importlib.util
import sys
import typing

__version__ = importlib.metadata.version("fastsnn")

if typing.TYPE_CHECKING or sys.modules.get("torch"):
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
        checkpoint,
        convert_batchnorm,
        detach,
        fold,
        load_states,
        reset,
        states,
    )
else:

    def __getattr__(name: str) -> object:
        """A submodule, or what `nn` or `backends` names so."""
        if importlib.util.find_spec(f"{__name__}.{name}"):
            return importlib.import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = "backends" if name in ("BackendError", "use_backend") else "nn"
        return getattr(importlib.import_module(f"{__name__}.{home}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


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
    "checkpoint",
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
