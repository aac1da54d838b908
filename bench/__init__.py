"""Benchmarks: one registry of cases, one runner. `fastsnn bench`, or `python -m bench` from the repository."""

from __future__ import annotations


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks (`--help` lists the options). Returns 0, or 1 where a case was refused or failed."""
    from .runner import main as run

    return run(argv)
