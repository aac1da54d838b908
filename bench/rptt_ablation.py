"""RPTT's ablation, as in the paper's figure 3 (a): `python -m bench.rptt_ablation`.

Trains `fastsnn train --data sequential-digits --rule R --seed S` for OSBP, +STGR, +MPDR and RPTT with five seeds and
writes rptt_ablation.csv (one row a run) and rptt_ablation.md (mean and spread) into bench/results.
"""

from __future__ import annotations

from fastsnn.train.experiment import RPTT_ABLATION

from .accuracy import compare

if __name__ == "__main__":
    compare({rule: {"data": "sequential-digits", "rule": rule} for rule in RPTT_ABLATION}, "rptt_ablation")
