"""The parity gate and the clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cases import Case, Provider, Workload, missing, release
from .record import Row, row

# mode -> (what is prepared before the clock starts, what is timed)
MODES: dict[str, tuple[Any, Any]] = {
    "forward": (lambda work: None, lambda work, _: work.forward()),
    "backward": (lambda work: work.forward(), lambda work, out: work.backward(out)),
    "full": (lambda work: None, lambda work, _: work.full()),
}


class ParityError(AssertionError):
    """A provider's numbers are not the reference's: its timings would mean nothing."""


@dataclass(frozen=True)
class Plan:
    """How long to measure. budget: seconds for all providers of one size and mode; sample: seconds of calls
    averaged into one repetition; fewest, most: repetitions. sizes: the Case's field to run."""

    budget: float
    sample: float
    fewest: int
    most: int
    sizes: str


FULL = Plan(budget=2.0, sample=2e-2, fewest=7, most=200, sizes="sizes")
QUICK = Plan(budget=0.02, sample=1e-4, fewest=3, most=5, sizes="quick_sizes")


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Largest difference over the largest value (at least 1, the scale of g); NaN where either holds one."""
    if truth.shape != found.shape:
        return math.inf
    scale = truth.abs().max().clamp(min=1)
    return ((found - truth).abs().max() / scale).item()


def check_parity(case: Case, works: dict[str, Workload], x: Tensor, g: Tensor) -> None:
    """Raises ParityError where output, gradients or state of a workload differ from the case's truth."""
    truth = case.truth(x, g).outcome()
    for name, work in works.items():
        outcome = work.outcome()
        for key in truth.keys() & outcome.keys():
            error = relative_error(outcome[key], truth[key])
            if not error <= case.tolerance:
                raise ParityError(
                    f"{case.name}, {name}: {key} is off by {error:.1e} of its largest value at x {tuple(x.shape)} "
                    f"{x.dtype} (allowed: {case.tolerance:.0e}); not timed"
                )


def once(work: Workload, mode: str) -> float:
    """Seconds of one call."""
    prepare, act = MODES[mode]
    prepared = prepare(work)
    start = perf_counter()
    act(work, prepared)
    return perf_counter() - start


def sample(work: Workload, mode: str, calls: int) -> float:
    """Mean seconds of `calls` calls, after one that brings back this workload's own caches."""
    once(work, mode)
    return sum(once(work, mode) for _ in range(calls)) / calls


def alternate(works: dict[str, Workload], mode: str, plan: Plan) -> dict[str, list[float]]:
    """Samples of every workload, taken in turn so that a drift of the machine meets all of them."""
    costs = {name: min(once(work, mode) for _ in range(3)) for name, work in works.items()}
    calls = {name: max(1, math.ceil(plan.sample / cost)) for name, cost in costs.items()}
    samples: dict[str, list[float]] = {name: [] for name in works}
    end = perf_counter() + plan.budget
    for done in range(plan.most):
        if done >= plan.fewest and perf_counter() > end:
            break
        for name, work in works.items():
            samples[name].append(sample(work, mode, calls[name]))
    return samples


def time_rows(case: Case, plan: Plan, allocator: str) -> tuple[list[Row], list[str]]:
    """Rows of every provider that is installed, and notes on those that are not. Raises ParityError."""
    lacking = {provider.name: missing(provider.package) for provider in case.providers}
    notes = [f"{case.name}: {name} skipped, {why}" for name, why in lacking.items() if why]
    providers = [provider for provider in case.providers if not lacking[provider.name]]
    rows = []
    for dtype in case.dtypes:
        for size in getattr(case, plan.sizes):
            rows += _size_rows(case, providers, dtype, size, plan, allocator)
    return rows, notes


def _size_rows(
    case: Case, providers: list[Provider], dtype: torch.dtype, size: int, plan: Plan, allocator: str
) -> list[Row]:
    x, g = case.inputs(size, dtype)
    works = {provider.name: provider.build(x, g) for provider in providers}
    check_parity(case, {provider.name: works[provider.name] for provider in providers if provider.gated}, x, g)
    rows = []
    for mode in case.modes:
        samples = alternate(works, mode, plan)
        for provider in providers:
            about = {
                "case": case.name,
                "kernel": case.kernel,
                "provider": provider.name,
                "mode": mode,
                "dtype": str(dtype).removeprefix("torch."),
                "size": size,
                "repetitions": len(samples[provider.name]),
                "allocator": allocator,
                "peer": release(provider.package),
            }
            rows += _metric_rows(samples[provider.name], works[provider.name].moved_bytes, about)
    return rows


def _metric_rows(samples: list[float], moved_bytes: int, about: dict[str, Any]) -> list[Row]:
    """Time and, where the bytes are known, bandwidth."""
    p20, p50, p80 = (float(p) for p in np.percentile(samples, [20, 50, 80]))
    rows = [row(**about, metric="time", unit="us", p20=p20 * 1e6, p50=p50 * 1e6, p80=p80 * 1e6)]
    if moved_bytes:
        gigabytes = moved_bytes / 1e9
        rates = {"p20": gigabytes / p80, "p50": gigabytes / p50, "p80": gigabytes / p20}
        rows.append(row(**about, metric="bandwidth", unit="GB/s", **rates))
    return rows
