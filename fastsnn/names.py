"""What arguments and the command line may say. Imports no torch, so that `fastsnn --help` need not."""

from __future__ import annotations

from .rules import RULES as RULES

VERSIONS = ("I", "II", "III")  # of EM-PF
BACKENDS = ("cuda", "triton", "cpu", "reference")
DATASETS = ("digits", "sequential-digits")
LARGEST = 2**31 - 1  # number of steps, of epochs, and of samples in a batch


def through_time(rule: str | None) -> bool:
    """Whether a rule goes back through all steps at once."""
    return rule in RULES and not RULES[rule].online
