"""What has a name in arguments and on the command line. Imports no torch, so that `fastsnn --help` need not."""

from __future__ import annotations

from .rules import RULES as RULES

VERSIONS = ("I", "II", "III")  # of EM-PF
BACKENDS = ("cuda", "triton", "cpu", "reference")
DATASETS = ("digits", "sequential-digits")
