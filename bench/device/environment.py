"""Versions, the device, and one step of each backend bit for bit."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import torch

import fastsnn
from fastsnn import backends
from fastsnn.functional import lif_sequence

from .target import Stage

PACKAGES = ("torch", "triton", "numpy", "spikingjelly", "snntorch", "pytest")


def installed(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "not installed"


def output_of(*command: str) -> str:
    """What a command prints, or why it does not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=15)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout or done.stderr).strip()


def run(stage: Stage) -> None:
    target = stage.target
    stage.row(
        case="versions",
        python=sys.version.split()[0],
        fastsnn=fastsnn.__version__,
        packages={name: installed(name) for name in PACKAGES},
    )
    if target.is_gpu:
        p = torch.cuda.get_device_properties(0)
        stage.row(
            case="device",
            name=p.name,
            capability=f"{p.major}.{p.minor}",
            memory_gib=p.total_memory / 2**30,
            l2_mib=p.L2_cache_size / 2**20,
            multiprocessors=p.multi_processor_count,
            cuda=torch.version.cuda,
            nvidia_smi=output_of(
                "nvidia-smi",
                "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit",
                "--format=csv",
            ),
        )
    x = torch.randn(3, 4099)
    with fastsnn.use_backend("cpu"):
        expected = lif_sequence(x, rule="ottt", v_reset=None, decay_input=False)
    for name in target.backends:
        reason = backends.refusal("lif", name, torch.device(target.device))
        if reason is None:
            with fastsnn.use_backend(name):
                found = lif_sequence(x.to(target.device), rule="ottt", v_reset=None, decay_input=False)
            equal = all(a is b is None or torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))
        stage.row(case="first step", backend=name, ok=reason is None and equal, refusal=reason)
