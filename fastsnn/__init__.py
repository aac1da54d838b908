"""Fused kernels for online training of spiking neural networks in PyTorch.

torch is imported with the first name that is asked for, so that the command line answers at once; where torch is there
already, with the package: torch.export.load finds fastsnn's operators after `import torch, fastsnn`.
"""

import importlib.metadata
import importlib.util
import pathlib
import sys
import typing


def _hand_over() -> None:
    """Where Python was started in the source folder and finds it in place of the installed package, that one takes its
    place: the source has no cores."""
    for found in importlib.metadata.distributions(name=__name__):
        installed = pathlib.Path(str(found.locate_file(f"{__name__}/__init__.py")))
        if installed.exists() and not installed.samefile(__file__):
            spec: typing.Any = importlib.util.spec_from_file_location(__name__, installed)
            sys.modules[__name__] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return


if (pathlib.Path(__file__).parents[1] / "setup.py").exists():
    _hand_over()

from ._version import __version__  # noqa: E402 (the installed package's, after it took over)

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
    from .recorder import record
    from .summaries import summary
else:

    def __getattr__(name: str) -> object:
        """A submodule, or what `nn` or `backends` names so."""
        if name == "backends":
            importlib.import_module(f"{__name__}.ops")  # whose kernels register there
        if importlib.util.find_spec(f"{__name__}.{name}"):
            return importlib.import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        homes = {"BackendError": "backends", "use_backend": "backends", "record": "recorder", "summary": "summaries"}
        home = homes.get(name, "nn")
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
    "record",
    "reset",
    "states",
    "summary",
    "surrogate",
    "use_backend",
]
