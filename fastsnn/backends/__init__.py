"""One registry: operation family -> backend -> kernels, with a reason for every refusal (DESIGN: dispatch).

Order for a CPU tensor: cpu, reference; for a CUDA tensor: cuda, triton, reference. Where the first choice
cannot run, the next one does, after one warning that names the reason. A backend forced by
`use_backend(name)` or the environment variable FASTSNN_BACKEND runs or raises.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch

from ..reference import lif as reference_lif
from ..reference import standardize as reference_standardize
from . import cpu

__all__ = ["BackendError", "available", "explain", "select", "use_backend"]

ORDER = {"cpu": ("cpu", "reference"), "cuda": ("cuda", "triton", "reference")}
NAMES = ("cuda", "triton", "cpu", "reference")
KERNELS: dict[str, dict[str, Any]] = {
    "lif": {"cpu": cpu.lif, "reference": reference_lif},
    "standardize": {"cpu": cpu.standardize, "reference": reference_standardize},
}


class BackendError(RuntimeError):
    """A backend was asked for and cannot run; the message says why and what to do."""


def _check(name: str) -> str:
    if name not in NAMES:
        raise BackendError(f"backend is {name!r}; allowed: {', '.join(NAMES)}, or None for the default order")
    return name


_forced: str | None = None
_warned: set[str] = set()
_chosen: dict[tuple[str, torch.device], Any] = {}

if os.environ.get("FASTSNN_BACKEND"):
    _forced = _check(os.environ["FASTSNN_BACKEND"])


def refusal(family: str, backend: str, device: str) -> str | None:
    """Why `backend` cannot run `family` on tensors of `device`; None where it can."""
    if backend in ("cuda", "triton"):
        return f"this version of fastsnn has no {backend} kernels"
    if backend == "cpu":
        if device != "cpu":
            return f"the cpu backend takes CPU tensors and this one is on {device}"
        return cpu.refusal()
    return None


def available() -> dict[str, str]:
    """Every backend and 'available', or the reason why it is not."""
    return {
        name: refusal("lif", name, "cuda" if name in ("cuda", "triton") else "cpu") or "available" for name in NAMES
    }


def explain(family: str, device: str) -> list[tuple[str, str]]:
    """(backend, 'runs' | 'not reached' | reason) in order of choice for tensors of `device`."""
    order = (_forced,) if _forced else ORDER.get(device, ("reference",))
    rows, found = [], False
    for backend in order:
        reason = refusal(family, backend, device)
        rows.append((backend, "not reached" if found else reason or "runs"))
        found = found or reason is None
    return rows


def _select(family: str, device: str) -> Any:
    rows = explain(family, device)
    runs = next((backend for backend, verdict in rows if verdict == "runs"), None)
    if runs is None:
        raise BackendError(
            f"backend {_forced!r} is forced and cannot run {family} on {device}: {rows[0][1]}. "
            f"Remove the override (fastsnn.use_backend(None), FASTSNN_BACKEND), or see `python -m fastsnn info`"
        )
    if _forced is None and runs == "reference":
        reason = "; ".join(
            f"{backend}: {verdict}" for backend, verdict in rows if verdict not in ("runs", "not reached")
        )
        reason = reason or f"no kernels for {device} tensors"
        if reason not in _warned:
            _warned.add(reason)
            warnings.warn(f"fastsnn runs the slow PyTorch reference ({reason})", RuntimeWarning, stacklevel=4)
    return KERNELS[family][runs]


def select(family: str, tensor: torch.Tensor) -> Any:
    """The kernels of `family` for `tensor`, by the order and the override. Raises BackendError."""
    key = (family, tensor.device)
    kernels = _chosen.get(key)
    if kernels is None:
        kernels = _chosen[key] = _select(family, tensor.device.type)
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
