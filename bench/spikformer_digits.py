"""A small Spikformer on the digits, online and through time, and what replaces batch norm in it: `python -m
bench.spikformer_digits`.

Spikformer-1-32, two heads, 4x4 positions, T = 4, 6 epochs: BPTT, SLTT and OTTT (these in mode O) with standardised
weights, and OTTT with the other norms. Five seeds, one thread. Writes spikformer_digits.csv (one row a run) and
spikformer_digits.md (mean and spread) into bench/results.
"""

from __future__ import annotations

from typing import Any

import torch

from fastsnn.rules import RULES

from .accuracy import Row, compare

COMMON: dict[str, Any] = {"paper": "", "data": "digits", "model": "spikformer", "steps": 4, "epochs": 6}
COMMON |= {"batch_size": 64, "lr": 0.05, "mse": 0.05}
COMMON |= {"model_options": {"depth": 1, "channels": 32, "heads": 2, "poolings": 1}}


def case(norm: str, rule: str) -> Row:
    """Fields of a recipe."""
    mode = "O" if RULES[rule].online else "A"
    return {**COMMON, "name": f"{norm}-{rule}", "norm": norm, "rule": rule, "mode": mode}


def cases() -> dict[str, Row]:
    """By the row's name."""
    compared = [("sws", "bptt"), ("sws", "sltt"), ("sws", "ottt"), ("osr", "ottt"), ("osr+ots", "ottt"), ("bn", "ottt")]
    return {f"{rule}, {norm}": case(norm, rule) for norm, rule in compared}


if __name__ == "__main__":
    torch.set_num_threads(1)
    compare(cases(), "spikformer_digits")
