"""compute-sanitizer over every family once, on the CUDA core: memory, then races in kernels with shared memory."""

from __future__ import annotations

import shutil
import subprocess
import sys

from .families import families, play
from .target import DTYPES, Stage, Target

RACES = ("osr", "osrlif", "ots", "mpdr", "empf II", "packed linear 64", "packed conv", "standardize")


def worker(names: list[str]) -> None:
    """Every family with 4,099 neurons; with names, these alone."""
    small = Target("cpu", "", "")
    for family in families(small):
        if names and family.name not in names:
            continue
        for dtype in ("float32", "bfloat16"):
            play(family, "cuda", "cuda", DTYPES[dtype])
        print("ran", family.name, flush=True)


def run(stage: Stage) -> None:
    tool = shutil.which("compute-sanitizer")
    if not stage.target.is_gpu or tool is None:
        why = "compute-sanitizer is not on PATH" if stage.target.is_gpu else "needs a device"
        stage.row(case="compute-sanitizer", error=why)
        return
    half = stage.left() / 2
    for check, names in (("memcheck", []), ("racecheck", list(RACES))):
        command = [tool, "--tool", check, "--error-exitcode", "9", "--print-limit", "20"]
        command += [sys.executable, "-m", __name__, "worker", *names]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=min(half, stage.left() - 2))
            text, code = done.stdout + done.stderr, done.returncode
        except subprocess.TimeoutExpired as late:
            text, code = (late.stdout or b"").decode(), "did not end in its time"
        ran = [line.removeprefix("ran ") for line in text.splitlines() if line.startswith("ran ")]
        summary = [line for line in text.splitlines() if "ERROR SUMMARY" in line or "RACECHECK SUMMARY" in line]
        found = [line for line in text.splitlines() if line.startswith("=========")][:40]
        ok = code == 0
        stage.row(case=check, ok=ok, code=code, families=len(ran), summary=summary, found=[] if ok else found)


if __name__ == "__main__" and sys.argv[1:2] == ["worker"]:
    worker(sys.argv[2:])
