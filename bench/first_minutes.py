"""A newcomer's first minutes, in a fresh clone and fresh environments: `python -m bench.first_minutes [CASE ...]`.

Times the README's two commands, its training beside four busy processes, and the command's help and first output; then
installs where there is no nvcc, and where there is no compiler. Needs git and a quiet machine of two cores or more.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from time import perf_counter

from .record import cpu_name

ROOT = Path(__file__).resolve().parents[1]
BUSY = 4
COMPILERS = ("c++", "g++", "gcc", "cc", "clang", "clang++")


class Newcomer:
    """A fresh environment in `folder` that works in a clone; commands that are in `lacks` are not on its PATH."""

    def __init__(self, folder: Path, clone: Path, lacks: tuple[str, ...] = ()) -> None:
        self.clone = clone
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        path = os.environ["PATH"]
        if lacks:
            path = str(_without(folder / "bin", lacks))
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("FASTSNN_", "CUDA_", "OMP_"))}
        self.environment = {**clean, "PATH": f"{folder / 'venv' / 'bin'}{os.pathsep}{path}"}

    def run(self, command: str, **environment: str) -> tuple[float, subprocess.CompletedProcess[str]]:
        """Seconds, and what came of it."""
        start = perf_counter()
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.clone,
            env={**self.environment, **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return perf_counter() - start, done

    def seconds(self, command: str) -> float:
        """Of a command that succeeds. Raises RuntimeError with its last words else."""
        seconds, done = self.run(command)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout[-2000:]}")
        return seconds

    def first_output(self, command: str) -> float:
        """Seconds until a command, then stopped, has said something."""
        start = perf_counter()
        with subprocess.Popen(
            command.split(),
            cwd=self.clone,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            seconds = perf_counter() - start
            process.kill()
        return seconds


def _without(folder: Path, lacks: tuple[str, ...]) -> Path:
    """A folder of links to all that is on PATH but `lacks`, in any version."""
    folder.mkdir()
    for found in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(found).glob("*"):
            link = folder / program.name
            if not any(program.name == name or program.name.startswith(f"{name}-") for name in lacks):
                link.unlink(missing_ok=True)
                link.symlink_to(program)
    return folder


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Beside so many processes that never wait."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def commands(user: Newcomer) -> list[tuple[str, str, str]]:
    """(step, measured, bar) of the README's commands."""
    install = user.seconds("pip install '.[train]'")
    help_ = min(user.seconds("fastsnn --help") for _ in range(3))
    first = user.first_output("fastsnn train")
    quiet = user.seconds("fastsnn train")
    with busy(BUSY):
        loaded = user.seconds("fastsnn train")
    extra = user.seconds("pip install '.[test]'")
    tests = user.seconds("pytest -n auto")
    return [
        ("README command 1, `pip install '.[train]'`", f"{install:.0f} s", "<= 100 s"),
        ("its `fastsnn train`", f"{quiet:.0f} s", "<= 40 s"),
        (f"the same beside {BUSY} busy processes", f"{loaded:.0f} s, {loaded / quiet:.1f}x", "<= 6x"),
        ("`fastsnn --help`", f"{help_:.2f} s", "<= 1 s"),
        ("first output of `fastsnn train`", f"{first:.2f} s", "<= 2 s"),
        ("README command 2, `pip install '.[test]'`", f"{extra:.0f} s", "-"),
        ("its `pytest -n auto`", f"{tests / 60:.1f} min", "<= 6 min"),
    ]


def without_nvcc(user: Newcomer) -> list[tuple[str, str, str]]:
    install, train = user.seconds("pip install '.[train]'"), user.seconds("fastsnn train")
    return [
        ("no nvcc: `pip install '.[train]'`", f"{install:.0f} s", "<= 100 s"),
        ("no nvcc: `fastsnn train`", f"{train:.0f} s", "<= 40 s"),
    ]


def without_compiler(user: Newcomer) -> list[tuple[str, str, str]]:
    seconds, done = user.run("pip install '.[train]'")
    said = next((line.strip() for line in done.stdout.splitlines() if "needs a C++17 compiler" in line), "no remedy")
    _, missing = user.run("cd / && python -c 'import fastsnn'")
    pure, pure_done = user.run("pip install '.[train]'", FASTSNN_PURE_PYTHON="1")
    train = user.seconds("fastsnn train --epochs 1")
    return [
        ("no compiler: `pip install '.[train]'`", f"refused after {seconds:.0f} s: {said}", "one sentence"),
        ("no compiler: what it left", "nothing" if missing.returncode else "a package", "nothing"),
        ("no compiler: with FASTSNN_PURE_PYTHON=1", f"{pure:.0f} s, status {pure_done.returncode}", "status 0"),
        ("no compiler: `fastsnn train --epochs 1`", f"{train:.0f} s", "-"),
    ]


CASES = {
    "whole": (commands, ()),
    "no-nvcc": (without_nvcc, ("nvcc",)),
    "no-compiler": (without_compiler, (*COMPILERS, "nvcc")),
}


def main() -> None:
    """Measure, print and write bench/results/first_minutes.md."""
    rows: list[tuple[str, str, str]] = []
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
    for name in sys.argv[1:] or CASES:
        measure, lacks = CASES[name]
        folder = Path(tempfile.mkdtemp(prefix=f"fastsnn-{name}-"))
        try:
            clone = folder / "clone"
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
            user = Newcomer(folder, clone, lacks)
            for row in measure(user):
                print(" | ".join(row), flush=True)
                rows.append(row)
        finally:
            shutil.rmtree(folder)
    nvcc = "nvcc on PATH" if shutil.which("nvcc") else "no nvcc"
    lines = [
        "# The first minutes",
        f"`python -m bench.first_minutes`, commit {commit}, {date.today().isoformat()}: {cpu_name()}, "
        f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, {nvcc}; packages came from pip's "
        "cache or a mirror.",
        "\n".join(["| step | measured | bar |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]),
    ]
    (ROOT / "bench" / "results" / "first_minutes.md").write_text("\n\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
