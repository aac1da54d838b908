"""How OpenMP's threads wait, in torch and in the native core, which share one runtime; and how busy the machine is."""

from __future__ import annotations

import os

import torch

POLICY = "OMP_WAIT_POLICY"  # read by the runtime when torch loads it


def sleeps() -> bool:
    """Whether a thread that waits sleeps at once. Else it spins for a while, which is faster where every thread has a
    core, and where it has none takes the time of the thread it waits for."""
    return os.environ.get(POLICY, "").lower() == "passive"


def crowded() -> str | None:
    """What to do where this machine has more to run than cores and the threads spin; None where all is well."""
    threads, cores = torch.get_num_threads(), _cores()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads == 1 or sleeps() or load < cores + 1:
        return None
    return (
        f"this machine's load is {load:.1f} on {cores} cores: {threads} threads that spin while they wait for each "
        f"other make fastsnn and torch many times slower there. Set {POLICY}=passive before Python starts, or "
        "torch.set_num_threads(1)"
    )


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
