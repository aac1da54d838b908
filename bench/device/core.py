"""The CUDA core for a device whose architecture the installed one lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from fastsnn import backends

from .target import Stage

NEEDS = ("setup.py", "csrc")


def command(clone: Path, site: Path) -> list[str]:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps"]
    return [*pip, "--target", str(site), str(clone)]


def build(stage: Stage) -> dict[str, str]:
    """Builds it into OUT/site, where it is lacking. Returns what the stages' environment then needs."""
    reason = backends.refusal("lif", "cuda", torch.device(stage.target.device))
    if not stage.target.is_gpu or reason is None:
        return {}
    clone, site = Path(stage.target.tests).parent, Path(stage.target.out) / "site"
    if not all((clone / name).exists() for name in NEEDS) or not shutil.which("nvcc"):
        why = f"{reason}; to build it here takes nvcc and a clone around {stage.target.tests}"
        stage.row(case="build", ok=False, error=why)
        return {}
    arch = "".join(map(str, torch.cuda.get_device_capability()))
    asked = {"FASTSNN_CUDA": "1", "FASTSNN_CUDA_ARCHS": arch}
    try:
        done = subprocess.run(
            command(clone, site), env=os.environ | asked, capture_output=True, text=True, timeout=stage.left()
        )
    except subprocess.TimeoutExpired:
        stage.row(case="build", ok=False, error=f"{reason}; its build did not end in {stage.target.seconds:.0f} s")
        return {}
    stage.row(case="build", ok=done.returncode == 0, arch=arch, because=reason, said=done.stderr[-600:])
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))} if done.returncode == 0 else {}
