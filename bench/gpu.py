"""`fastsnn bench --gpu-report`: what only a real device can show, in one report."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from fastsnn import backends

from . import report, roofline, runner
from .cases import CASES, Case
from .record import Row, write_csv

BACKENDS = ("cuda", "triton")
# which of its kernels SpikingJelly runs beside ours; its own choice is CUDA, where it could build them
PEERS = {"cuda": {"SJ_LIF_CUDA_IMPLEMENTATION": "auto"}, "triton": {"SJ_LIF_CUDA_IMPLEMENTATION": "triton"}}
TESTS = Path("tests")  # of the clone that the report is started in
# bytes of DESIGN's table that a float32 step moves: case and mode
MOVED = {
    **{(case, "forward"): moved for case, moved in (("sltt_step", 16), ("ottt_step", 24), ("ndot_step", 32))},
    **{(case, "backward"): 12 for case in ("sltt_step", "ottt_step", "ndot_step")},
}
NO_DEVICE = (
    "fastsnn bench --gpu-report needs a CUDA device and torch finds none: run it on a machine with a GPU, its driver "
    "and a CUDA build of torch. What can be shown without one is in bench/results/gpu_kernels.md"
)


def device_lines() -> list[str]:
    """The device, the versions, and what each backend says."""
    properties = torch.cuda.get_device_properties(0)
    found = f"{properties.name}, compute capability {properties.major}.{properties.minor}"
    lines = [
        f"{found}, {properties.total_memory / 2**30:.0f} GiB; torch {torch.__version__}, CUDA {torch.version.cuda}"
    ]
    return lines + [f"{name}: {backends.refusal('lif', name, torch.device('cuda', 0)) or 'runs'}" for name in BACKENDS]


def run_tests() -> tuple[str, bool]:
    """The summary of `pytest -m gpu`: parity, large tensors, graph capture; and whether all passed."""
    if not TESTS.exists():
        return f"not run: no folder {TESTS} in {Path.cwd()}. Start the report in a clone of the repository", False
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "."]
    # not in the clone's root, where Python would import its fastsnn before the installed one
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True)
    return (done.stdout or done.stderr)[-4000:], done.returncode == 0


def jobs(options: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    """Every case on the device, by each backend that runs there."""
    common = {"threads": options.threads, "quick": options.quick, "allocator": "default", "device": device}
    names = [name for name in options.only if name != "counts"]

    def runs(case: str, backend: str) -> bool:
        return backends.refusal(CASES[case].family, backend, torch.device(device)) is None

    return [
        {"case": case, "backend": name, "environment": PEERS.get(name, {}), **common}
        for name in BACKENDS
        for case in names
        if runs(case, name)
    ]


def measure(jobs: list[dict[str, Any]]) -> dict[str, runner.Run]:
    """The rows of each backend."""
    runs: dict[str, runner.Run] = {}
    for job in jobs:
        runs.setdefault(job["backend"], runner.Run()).add(runner.launch(job))
        print(f"{job['case']:16} {job['backend']}", flush=True)
    return runs


def case_section(case: Case, rows: list[Row]) -> list[str]:
    times = [row for row in rows if row.case == case.name and row.metric == "time"]
    return [f"### {case.name}", case.note, report.time_table(times)] if times else []


def roofline_lines(name: str, runs: dict[str, runner.Run]) -> list[str]:
    """What the limits of the device `name` predict for one launch of the step kernels, beside what a call took."""
    device = roofline.device_named(name)
    if device is None:
        return [f"no published limits here for {name}"]
    lines = [
        "| case | backend | neurons | mode | predicted (us) | measured (us) | share |",
        "|---|---|---|---|---|---|---|",
    ]
    for backend, run in runs.items():
        for row in run.rows:
            moved = MOVED.get((row.case, row.mode))
            if moved and (row.provider, row.dtype, row.metric) == ("fastsnn", "float32", "time"):
                us = roofline.predict(device, row.size, moved, 0).seconds * 1e6
                measured = f"{us:.1f} | {row.p50:.1f} | {us / row.p50:.0%}"
                lines.append(f"| {row.case} | {backend} | {row.size:,} | {row.mode} | {measured} |")
    return lines


def markdown(about: list[str], tests: str, runs: dict[str, runner.Run]) -> str:
    """The report. about: its first line names the device."""
    sections = ["# GPU report", "\n".join(f"- {line}" for line in about), "## Tests", f"```\n{tests}\n```"]
    sections += ["## Against the roofline: predicted from bytes and launch", "\n".join(roofline_lines(about[0], runs))]
    for backend, run in runs.items():
        sections.append(f"## Times, backend {backend}: medians, each call until the device has done it")
        for case in CASES.values():
            sections += case_section(case, run.rows)
        sections += [f"- {why}" for why in (*run.refused, *run.notes)]
    return "\n\n".join(sections) + "\n"


def main(options: argparse.Namespace, device: str = "cuda") -> int:
    """Times, tests, report. Returns 1 where there is no device, a case was refused or the tests did not pass."""
    if device == "cuda" and not torch.cuda.is_available():
        print(NO_DEVICE, file=sys.stderr)
        return 1
    runs = measure(jobs(options, device))
    options.out.mkdir(parents=True, exist_ok=True)
    tests, passed = run_tests()
    (options.out / "gpu-report.md").write_text(markdown(device_lines(), tests, runs))
    write_csv([row for run in runs.values() for row in run.rows], options.out / "gpu-report.csv")
    print(f"report in {options.out / 'gpu-report.md'}")
    return 0 if passed and not any(run.refused for run in runs.values()) else 1
