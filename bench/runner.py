"""The command: one child process per case and allocator, then CSV, Markdown and plots."""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

from . import device, plot, report
from .cases import CASES
from .launch import ALLOCATORS, launch
from .record import Run, write_csv

NAMES = (*CASES, "counts")


def default_out() -> Path:
    """bench/results at the root of the repository, bench-results anywhere else."""
    source = Path(__file__).resolve().parent
    at_root = source.parent == Path.cwd() and (source.parent / "pyproject.toml").exists()
    return source / "results" if at_root else Path("bench-results")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="fastsnn bench",
        description="Check that fastsnn, its PyTorch reference, torch.compile, SpikingJelly and snnTorch compute the "
        "same, then time them. Writes CSV, Markdown and plots.",
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="CASE", help=", ".join(NAMES))
    parser.add_argument(
        "--allocator",
        nargs="+",
        choices=ALLOCATORS,
        default=list(ALLOCATORS),
        help="warm: buffers are reused without page faults; default: glibc as it comes (default: both)",
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument(
        "--gpu-report",
        action="store_true",
        help="everything that needs a CUDA device, in one report of 8 minutes; more options: python -m bench.device",
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="tiny sizes: tries the code, measures nothing")
    sizes.add_argument("--bars", action="store_true", help="also what this project holds itself to, with verdicts")
    parser.add_argument(
        "--out",
        type=Path,
        default=default_out(),
        help="folder of the results (default: bench/results in the repository, else bench-results)",
    )
    return parser.parse_args(argv)


def jobs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every case under every allocator; counts, which do not depend on it, once."""
    common = {"threads": options.threads, "quick": options.quick}
    timed = [
        {"case": case, "allocator": allocator, **common}
        for case in options.only
        for allocator in options.allocator
        if case != "counts"
    ]
    return timed + [{"case": "counts", "allocator": "default", **common}] * ("counts" in options.only)


def main(argv: list[str] | None = None) -> int:
    """Run, write and print. Returns 0, or 1 where a case was refused or failed."""
    options = parse(argv)
    if options.gpu_report:
        return device.main(["--out", str(options.out)])
    run = Run()
    for job in jobs(options):
        start = perf_counter()
        run.add(launch(job))
        print(f"{job['case']:16} {job['allocator']:8} {perf_counter() - start:6.1f} s", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    write_csv(run.rows, options.out / "results.csv")
    run.notes += plot.save(run.rows, options.out)
    (options.out / "results.md").write_text(report.markdown(run, options.quick, options.bars))
    shown = [report.comparisons(run.rows), *([report.bars_table(run.rows)] if options.bars else [])]
    print("", *shown, *run.notes, *(f"REFUSED: {why}" for why in run.refused), sep="\n")
    print(f"results in {options.out}")
    return 1 if run.refused else 0
