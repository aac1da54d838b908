"""How the gradient rules compare where memory over time is needed: `python -m bench.sequential_digits`.

Trains `fastsnn train --data sequential-digits --rule R --seed S` for every rule and five seeds and writes
sequential_digits.csv (one row a run) and sequential_digits.md (mean and spread) into bench/results.
"""

from __future__ import annotations

from fastsnn.types import RULES

from .accuracy import compare

if __name__ == "__main__":
    compare({rule: {"data": "sequential-digits", "rule": rule} for rule in RULES}, "sequential_digits")
