"""The parity suite on the device, by several workers. A skipped parity test counts as failed there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from .target import Stage

FOLDERS = ("gpu", "parity", "deploy/test_deploy.py")
REHEARSED = ("gpu",)
MAY_SKIP = ("needs two CUDA devices", "needs 40 GiB")


def command(tests: Path, xml: Path, folders: tuple[str, ...], workers: int) -> list[str]:
    options = [
        "-q",
        "-m",
        "gpu",
        f"--junitxml={xml}",
        "-n",
        str(workers),
        "--dist",
        "worksteal",
        "-p",
        "no:cacheprovider",
    ]
    return [sys.executable, "-m", "pytest", *options, *[f for f in folders if (tests / f).exists()]]


def outcomes(xml: Path) -> tuple[Counter[str], dict[str, str]]:
    """How many tests had which outcome, and the first reason of each failing or skipped test function."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for case in ElementTree.parse(xml).getroot().iter("testcase"):
        bad = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        kind = "passed" if bad is None else bad.tag
        reason = "" if bad is None else (bad.get("message") or "")
        if kind == "skipped" and any(allowed in reason for allowed in MAY_SKIP):
            kind = "allowed skip"
        counts[kind] += 1
        if kind in ("failure", "error", "skipped"):
            name = f"{case.get('classname')}::{(case.get('name') or '').partition('[')[0]}"
            first.setdefault(name, f"{kind} [{(case.get('name') or '').partition('[')[2]}: {reason[:300]}")
    return counts, first


def run(stage: Stage) -> None:
    tests = Path(stage.target.tests)
    if not (tests / "conftest.py").exists():
        stage.row(case="suite", ok=False, error=f"no tests in {tests}: start the command in a clone of the repository")
        return
    out = Path(stage.target.out)
    folders = FOLDERS if stage.target.is_gpu else REHEARSED
    workers = min(12, max(1, (os.cpu_count() or 1) - 2))
    with (out / "tests.log").open("w") as log:
        try:
            subprocess.run(
                # inside tests/: Python would import the clone's unbuilt package before the installed one
                command(tests, out / "tests.xml", folders, workers),
                cwd=tests,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=max(stage.left() - 5, 1),
            )
        except subprocess.TimeoutExpired:
            stage.row(case="suite", ok=False, error="did not end in its time; see tests.log")
            return
    counts, first = outcomes(out / "tests.xml")
    bad = counts["failure"] + counts["error"] + (counts["skipped"] if stage.target.is_gpu else 0)
    stage.row(case="suite", ok=bad == 0 and counts["passed"] + counts["skipped"] > 0, counts=dict(counts))
    for name, reason in list(first.items())[:40]:
        stage.row(case=name, error=reason)
