"""OSR's and OTS's ablation, as in the paper's table 4: `python -m bench.osr_ablation`.

Trains `fastsnn train --data sequential-digits --rule R --seed S` for batch normalisation of each step, OSR and OSR+OTS
with five seeds and writes osr_ablation.csv (one row a run) and osr_ablation.md (mean and spread) into bench/results.
"""

from __future__ import annotations

from fastsnn.train.experiment import OSR_ABLATION

from .accuracy import compare

if __name__ == "__main__":
    compare({rule: {"data": "sequential-digits", "rule": rule} for rule in OSR_ABLATION}, "osr_ablation")
