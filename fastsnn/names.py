"""What has a name in arguments and on the command line. Imports no torch, so that `fastsnn --help` need not."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    online: bool  # v[t-1] is detached
    trace: str


RULES = {
    "bptt": Rule(False, "none"),
    "sltt": Rule(True, "none"),
    "ottt": Rule(True, "ottt"),
    "ndot": Rule(True, "ndot"),
    "ndot_released": Rule(True, "ndot_released"),
}
VERSIONS = ("I", "II", "III")  # of EM-PF
BACKENDS = ("cuda", "triton", "cpu", "reference")
DATASETS = ("digits", "sequential-digits")
