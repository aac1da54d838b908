"""`fastsnn bench --gpu-report`: what only a real device can show, in one report."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from fastsnn import backends

from . import report, runner
from .cases import CASES, Case
from .record import Row, write_csv

BACKENDS = ("cuda", "triton")
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


def run_tests() -> str:
    """The summary of `pytest -m gpu`: parity, large tensors, graph capture."""
    tests = Path(__file__).resolve().parents[1] / "tests"
    if not tests.exists():
        return "not run: the tests are in the repository, start the report from a clone"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(tests)]
    done = subprocess.run(command, cwd=tests.parent, capture_output=True, text=True)
    return done.stdout[-4000:]


def jobs(options: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    """Every case on the device, by each backend that runs there."""
    common = {"threads": options.threads, "quick": options.quick, "allocator": "default", "device": device}
    names = [name for name in options.only if name != "counts"]
    pairs = [(backend, case) for backend in BACKENDS for case in names]
    runs = lambda backend, case: backends.refusal(CASES[case].family, backend, torch.device(device)) is None  # noqa: E731
    return [{"case": case, "backend": backend, **common} for backend, case in pairs if runs(backend, case)]


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


def markdown(about: list[str], tests: str, runs: dict[str, runner.Run]) -> str:
    """The report."""
    sections = ["# GPU report", "\n".join(f"- {line}" for line in about), "## Tests", f"```\n{tests}\n```"]
    for backend, run in runs.items():
        sections.append(f"## Times, backend {backend}: medians, each call until the device has done it")
        for case in CASES.values():
            sections += case_section(case, run.rows)
        sections += [f"- {why}" for why in (*run.refused, *run.notes)]
    return "\n\n".join(sections) + "\n"


def main(options: argparse.Namespace) -> int:
    """Tests, times, report. Returns 1 where there is no device or a case was refused."""
    if not torch.cuda.is_available():
        print(NO_DEVICE, file=sys.stderr)
        return 1
    runs = measure(jobs(options, "cuda"))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu-report.md").write_text(markdown(device_lines(), run_tests(), runs))
    write_csv([row for run in runs.values() for row in run.rows], options.out / "gpu-report.csv")
    print(f"report in {options.out / 'gpu-report.md'}")
    return 1 if any(run.refused for run in runs.values()) else 0
