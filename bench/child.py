"""One job in a process of its own: `python -m bench.child JOB OUTCOME`, both JSON.

A job is {case, allocator, threads, quick}; the outcome {rows, notes, refused}.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .cases import CASES
from .counts import count_rows
from .measure import FULL, QUICK, ParityError, time_rows

# float32 values of the memory that the warm allocator touches before it is measured: 2 GiB
WARM_VALUES = 2**29
QUICK_WARM_VALUES = 2**22


def page_faults() -> int:
    """Pages this process has had mapped; 0 where the system does not count them."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def warm_memory(values: int) -> bool:
    """Touch and free a large buffer; whether the next one comes without page faults."""
    torch.empty(values).fill_(0)
    before = page_faults()
    torch.empty(values // 2).fill_(0)
    return page_faults() - before < 100


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Rows and notes of the job, or why its case is refused."""
    torch.set_num_threads(job["threads"])
    if job["case"] == "counts":
        return {"rows": [asdict(row) for row in count_rows(job["quick"])], "notes": []}
    notes = []
    if job["allocator"] == "warm" and not warm_memory(QUICK_WARM_VALUES if job["quick"] else WARM_VALUES):
        notes.append("the warm allocator has no effect here (it needs glibc): its rows repeat the default ones")
    plan = QUICK if job["quick"] else FULL
    try:
        rows, skipped = time_rows(CASES[job["case"]], plan, job["allocator"])
    except ParityError as error:
        return {"rows": [], "notes": notes, "refused": str(error)}
    return {"rows": [asdict(row) for row in rows], "notes": notes + skipped}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(json.loads(sys.argv[1]))))
