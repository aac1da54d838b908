"""Times of fastsnn alone, for pytest-benchmark to keep and compare: `pytest bench/test_regressions.py`
(`--benchmark-autosave`, then `--benchmark-compare`). Not part of the normal test run."""

from __future__ import annotations

from typing import Any

import pytest

from .cases import CASES

SIZES = {"ottt_step": 2**18, "ndot_step": 2**18, "sltt_step": 2**18, "bptt_sequence": 2**16, "step_overhead": 1}


@pytest.mark.parametrize("name", SIZES)
def test_full(name: str, benchmark: Any) -> None:
    case = CASES[name]
    x, g = case.inputs(SIZES[name])
    benchmark(case.providers[0].build(x, g).full)


@pytest.mark.parametrize("name", ["ottt_step", "ndot_step", "sltt_step"])
def test_forward(name: str, benchmark: Any) -> None:
    case = CASES[name]
    x, g = case.inputs(SIZES[name])
    benchmark(case.providers[0].build(x, g).forward)
