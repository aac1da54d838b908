"""A job in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# glibc: serve every size from the heap and never give the heap back, so that buffers are warm
ALLOCATORS = {
    "warm": {
        "MALLOC_MMAP_THRESHOLD_": "4294967296",
        "MALLOC_TRIM_THRESHOLD_": "8589934592",
        "MALLOC_TOP_PAD_": "268435456",
    },
    "default": {},
}


def root() -> Path:
    """The folder this package is imported from: a child that starts there finds the same one."""
    return Path(__file__).resolve().parents[__package__.count(".") + 1]


def launch(job: dict[str, Any]) -> dict[str, Any]:
    """The outcome of one job, run in a fresh process under its allocator."""
    asked = {**ALLOCATORS[job["allocator"]], "OMP_NUM_THREADS": str(job["threads"])}
    env = {**os.environ, **asked}
    with tempfile.TemporaryDirectory() as folder:
        outcome = Path(folder) / "outcome.json"
        command = [sys.executable, "-m", f"{__package__}.child", json.dumps(job), str(outcome)]
        done = subprocess.run(command, env=env, cwd=root(), capture_output=True, text=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            why = f"{job['case']} ({job['allocator']}) crashed, see its error above"
            return {"rows": [], "notes": [], "refused": why}
        return json.loads(outcome.read_text())
