"""The command: every stage in a process of its own, within its time; then the report."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..launch import root
from . import core, report
from .stages import PLANS, Plan
from .target import Stage, Target

NO_DEVICE = (
    "the device report needs a CUDA device and torch finds none: run it on a machine with a GPU, its driver and a CUDA "
    "build of torch. What can be shown without one is in bench/results/gpu_kernels.md; --rehearse tries this command "
    "itself on the CPU"
)
BUILD_SECONDS = 120.0
GRACE = 6.0  # a stage ends by itself before it is ended


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.device", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("device-report"), help="folder (default: device-report)")
    parser.add_argument("--minutes", type=float, default=8.0, help="all stages together (default: 8)")
    names = [plan.name for plan in PLANS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="STAGE", help=", ".join(names))
    parser.add_argument("--tests", type=Path, default=Path("tests"), help="the clone's tests (default: tests)")
    parser.add_argument("--rehearse", action="store_true", help="tries the command itself, on the CPU at tiny sizes")
    return parser.parse_args(argv)


def spawn(plan: Plan, target: Target) -> subprocess.Popen[str]:
    """The stage's process; it imports at once and runs when it is told."""
    module = f"{__package__}.stages"
    with (Path(target.out) / "stages.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, replace(target, stage=plan.name, seconds=plan.seconds).to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            text=True,
            cwd=root(),
            env={**os.environ, **plan.environment},
            start_new_session=True,
        )


def finish(process: subprocess.Popen[str], seconds: float) -> str | None:
    """Starts it and waits. What went wrong, or None."""
    try:
        process.communicate("start\n", timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"stopped after {seconds:.0f} s"
    return None if process.returncode == 0 else f"ended with {process.returncode}; see stages.log"


def within(plans: Sequence[Plan], minutes: float) -> list[Plan]:
    """The plans, each with its share of `minutes`."""
    share = minutes * 60 / sum(plan.seconds for plan in plans)
    return [replace(plan, seconds=plan.seconds * share) for plan in plans]


def run(plans: list[Plan], target: Target) -> None:
    """All stages, one after another; the next one's process imports while one runs."""
    ahead = spawn(plans[0], target)
    for plan, following in zip(plans, [*plans[1:], None], strict=True):
        process = ahead
        if following is not None:
            ahead = spawn(following, target)
        start = time.monotonic()
        problem = finish(process, plan.seconds + GRACE)
        took = time.monotonic() - start
        Stage(replace(target, stage=plan.name)).row(case="took", seconds=took, budget=plan.seconds, problem=problem)
        print(f"{plan.name:14} {took:6.1f} s of {plan.seconds:.0f}  {problem or ''}", flush=True)
        report.write(Path(target.out))


def main(argv: list[str] | None = None) -> int:
    """Run, write and print. Returns 0, or 1 where something was wrong, failed, or was skipped on a device."""
    options = parse(argv)
    if not options.rehearse and not torch.cuda.is_available():
        print(NO_DEVICE, file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("rows.jsonl", "stages.log"):
        (options.out / name).unlink(missing_ok=True)
    device = "cpu" if options.rehearse else "cuda"
    target = Target(device, str(options.out.resolve()), str(options.tests.resolve()))
    os.environ.update(core.build(Stage(replace(target, stage="build", seconds=BUILD_SECONDS))))
    share = within(PLANS, options.minutes)
    run([plan for plan in share if plan.name in options.only], target)
    lines, right = report.write(options.out)
    print("", *lines, f"report in {options.out / 'report.md'}", sep="\n")
    return 0 if right else 1
