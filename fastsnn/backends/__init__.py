"""One registry: operation family -> backend -> kernels, with a reason for every refusal (DESIGN: dispatch).

Order for a CPU tensor: cpu, reference; for a CUDA tensor: cuda, triton, and reference for the families that
neither holds. The reference runs after one warning that names the reason. A backend forced by
`use_backend(name)` or the environment variable FASTSNN_BACKEND runs or raises.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch

from ..errors import BackendError
from ..names import BACKENDS
from ..threads import crowded
from . import cpu, cuda, reference, triton

__all__ = ["BackendError", "available", "explain", "running", "select", "use_backend"]

# each has refusal(device) -> reason | None and KERNELS: family -> kernels
REGISTRY: dict[str, Any] = dict(zip(BACKENDS, (cuda, triton, cpu, reference), strict=True))
ORDER = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}


def _check(name: str) -> str:
    if name not in REGISTRY:
        raise BackendError(f"backend is {name!r}; allowed: {', '.join(REGISTRY)}, or None for the default order")
    return name


_forced: str | None = None
_warned: set[str] = set()
_chosen: dict[tuple[str, torch.device], Any] = {}

if os.environ.get("FASTSNN_BACKEND"):
    _forced = _check(os.environ["FASTSNN_BACKEND"])


def refusal(family: str, backend: str, device: torch.device) -> str | None:
    """Why `backend` cannot run `family` on tensors of `device`; None where it can."""
    if family not in REGISTRY[backend].KERNELS:
        return f"the {backend} backend has no {family} kernels"
    return REGISTRY[backend].refusal(device)


def available() -> dict[str, str]:
    """Every backend and 'available', or the reason why it is not."""
    home = {"cuda": "cuda", "triton": "cuda"}
    return {name: refusal("lif", name, torch.device(home.get(name, "cpu"))) or "available" for name in REGISTRY}


def _order(family: str, device: torch.device) -> tuple[str, ...]:
    if _forced:
        return (_forced,)
    order = ORDER.get(device.type, ())
    held = any(family in REGISTRY[backend].KERNELS for backend in order)
    return order if held and device.type == "cuda" else (*order, "reference")


def explain(family: str, device: str | torch.device) -> list[tuple[str, str]]:
    """(backend, 'runs' | 'not reached' | reason) in order of choice for tensors of `device`."""
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
    if runs is None and _forced:
        raise BackendError(
            f"backend {_forced!r} is forced and cannot run {family} on {device}: {rows[0][1]}. "
            f"Remove the override (fastsnn.use_backend(None), FASTSNN_BACKEND), or see `python -m fastsnn info`"
        )
    if runs is None:
        raise BackendError(
            f"no backend can run {family} on {device} ({reasons}). Mend one of them, move the tensors to the CPU, or "
            "ask for the slow PyTorch reference: fastsnn.use_backend('reference')"
        )
    if _forced is None and runs == "reference":
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


def select(family: str, tensor: torch.Tensor) -> Any:
    """The kernels of `family` for `tensor`, by the order and the override. Raises BackendError."""
    key = (family, tensor.device)
    kernels = _chosen.get(key)
    if kernels is None:
        kernels = _chosen[key] = _select(family, tensor.device)
    return kernels


class use_backend:
    """Force one backend: `fastsnn.use_backend("reference")`, alone or in a `with` that restores the previous.

    name: cuda, triton, cpu or reference; None for the default order.
    Raises BackendError for an unknown name at once, and at the call for one that cannot run.
    """

    def __init__(self, name: str | None) -> None:
        global _forced
        self.previous = _forced
        _forced = None if name is None else _check(name)
        _chosen.clear()

    def __enter__(self) -> use_backend:
        return self

    def __exit__(self, *exc: object) -> None:
        global _forced
        _forced = self.previous
        _chosen.clear()
