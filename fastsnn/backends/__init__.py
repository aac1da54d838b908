"""One registry: operation family -> backend -> kernels, with a reason for every refusal. Families register here.

Order for a CPU tensor: cpu, reference; for a CUDA tensor: cuda, triton, and reference for the families that
neither holds. The reference runs after one warning that names the reason. A backend forced by
`use_backend(name)`, in its context, or by the environment variable FASTSNN_BACKEND beneath runs or raises.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from ..errors import BackendError
from ..names import BACKENDS
from ..threads import crowded
from . import cpu, cuda, reference, triton
from .core import Core

__all__ = ["BackendError", "available", "explain", "running", "select", "use_backend"]

# each has refusal(device) -> reason | None and KERNELS: family -> kernels
REGISTRY: dict[str, Any] = dict(zip(BACKENDS, (cuda, triton, cpu, reference), strict=True))
CORES = (cpu.CORE, cuda.CORE, triton.CORE)
FAMILIES: dict[str, Callable[[Core], Any]] = {}  # -> its kernels on a core
ORDER = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}


def _check(name: str | None, source: str = "backend") -> str | None:
    if name is not None and name not in REGISTRY:
        raise BackendError(f"{source} is {name!r}; allowed: {', '.join(REGISTRY)}, or None for the default order")
    return name


_environment = _check(os.environ.get("FASTSNN_BACKEND") or None, "FASTSNN_BACKEND")
_forced: ContextVar[str | None] = ContextVar("fastsnn_backend", default=None)
_last: str | None = None  # what use_backend was given last, anywhere: graphs of torch.compile guard on it
_warned: set[str] = set()
_chosen: dict[tuple[str, torch.device, str | None], Any] = {}


def register(family: str, native: Callable[[Core], Any], reference: Any = None, cores: Sequence[Core] = CORES) -> None:
    """The kernels of a family: `native(core)` on each of these cores, and the reference where it has one."""
    FAMILIES[family] = native
    for core in cores:
        REGISTRY[core.name].KERNELS[family] = native(core)
    if reference is not None:
        REGISTRY["reference"].KERNELS[family] = reference


def forced() -> str | None:
    """The backend that this context, or else the environment, demands."""
    return _forced.get() or _environment


def refusal(family: str, backend: str, device: torch.device) -> str | None:
    """Why `backend` cannot run `family` on tensors of `device`; None where it can."""
    if family not in REGISTRY[backend].KERNELS:
        return f"the {backend} backend has no {family} kernels"
    return REGISTRY[backend].refusal(device)


def available() -> dict[str, str]:
    """Every backend and 'available', or the reason why it is not."""
    home = {"cuda": "cuda", "triton": "cuda"}
    return {name: REGISTRY[name].refusal(torch.device(home.get(name, "cpu"))) or "available" for name in REGISTRY}


def _order(family: str, device: torch.device) -> tuple[str, ...]:
    name = forced()
    if name:
        return (name,)
    order = ORDER.get(device.type, ())
    held = any(family in REGISTRY[backend].KERNELS for backend in order)
    return order if held and device.type == "cuda" else (*order, "reference")


def explain(family: str, device: str | torch.device) -> list[tuple[str, str]]:
    """(backend, 'runs' | 'not reached' | reason) in order of choice for tensors of `device`.

    Raises BackendError for a family that is not registered: fastsnn's own are with `import fastsnn.ops`.
    """
    if not any(family in backend.KERNELS for backend in REGISTRY.values()):
        names = ", ".join(FAMILIES) or "none before `import fastsnn.ops`"
        raise BackendError(f"family is {family!r}; registered are: {names}")
    device = torch.device(device)
    rows, found = [], False
    for backend in _order(family, device):
        reason = refusal(family, backend, device)
        rows.append((backend, "not reached" if found else reason or "runs"))
        found = found or reason is None
    return rows


def running(family: str, device: str | torch.device) -> str | None:
    """The backend that would run `family` for tensors of `device`; None where none can."""
    return next((backend for backend, verdict in explain(family, device) if verdict == "runs"), None)


def _select(family: str, device: torch.device) -> Any:
    rows, runs = explain(family, device), running(family, device)
    reasons = "; ".join(f"{backend}: {verdict}" for backend, verdict in rows if verdict not in ("runs", "not reached"))
    name = forced()
    if runs is None and name:
        raise _cannot(name, family, device, rows[0][1])
    if runs is None:
        raise BackendError(
            f"no backend can run {family} on {device} ({reasons}). Mend one of them, move the tensors to the CPU, or "
            "ask for the slow PyTorch reference: fastsnn.use_backend('reference')"
        )
    if name is None and runs == "reference":
        reason = reasons or f"no kernels for {device} tensors"
        if reason not in _warned:
            _warned.add(reason)
            warnings.warn(f"fastsnn runs the slow PyTorch reference ({reason})", RuntimeWarning, stacklevel=4)
    if runs == "cpu":
        _warn_where_crowded()
    return REGISTRY[runs].KERNELS[family]


def _warn_where_crowded() -> None:
    """Once in a process."""
    advice = crowded()
    if advice and "crowded" not in _warned:
        _warned.add("crowded")
        warnings.warn(advice, RuntimeWarning, stacklevel=5)


def _cannot(name: str, family: str, device: torch.device, reason: str) -> BackendError:
    return BackendError(
        f"backend {name!r} is forced and cannot run {family} on {device}: {reason}. "
        f"Remove the override (fastsnn.use_backend(None), FASTSNN_BACKEND), or see `python -m fastsnn info`"
    )


def check_forced(family: str, device: torch.device) -> None:
    """Raises BackendError where a backend is forced that runs nothing on `device`: for what selects no kernels."""
    name = forced()
    reason = None if name is None else REGISTRY[name].refusal(device)
    if name and reason:
        raise _cannot(name, family, device, reason)


def select(family: str, tensor: torch.Tensor) -> Any:
    """The kernels of `family` for `tensor`, by the order and the override. Raises BackendError."""
    key = (family, tensor.device, _forced.get())
    kernels = _chosen.get(key)
    if kernels is None:
        kernels = _chosen[key] = _select(family, tensor.device)
    return kernels


def override() -> str | None:
    """What `use_backend` demands in this context; None where it demands nothing."""
    return _forced.get()


@contextmanager
def under(name: str | None) -> Iterator[None]:
    """With the override of another context: for a backward pass, which belongs to the forward's and may run in a
    thread that knows of none. Raises BackendError for an unknown name."""
    token = _forced.set(_check(name))
    try:
        yield
    finally:
        _forced.reset(token)


def _force(name: str | None) -> None:
    global _last
    _last = name
    _forced.set(name)
    _chosen.clear()


class use_backend:
    """Force one backend: `fastsnn.use_backend("reference")`, alone or in a `with` that restores the previous.

    It holds in the context of the call (contextvars): its thread and asyncio task, not others that run beside it.
    name: cuda, triton, cpu or reference; None for what the environment variable FASTSNN_BACKEND says, or else the
    default order.
    Raises BackendError for an unknown name at once, and at the call for one that cannot run.
    """

    def __init__(self, name: str | None) -> None:
        self.previous = _forced.get()
        _force(_check(name))

    def __enter__(self) -> use_backend:
        return self

    def __exit__(self, *exc: object) -> None:
        _force(self.previous)
