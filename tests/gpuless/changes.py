"""How the machine code in bench/results/gpu_kernels.csv differs from that of an earlier commit, as a committed file:

    python -m tests.gpuless.changes COMMIT

writes bench/results/gpu_kernels_changes.md: a row for each kernel whose machine code is not in all rows what it was.
"""

import csv
import subprocess
import sys
from collections import defaultdict

from .report import RESULTS

KEY = ("source", "kernel", "dtype", "arch", "width")
HEAD = """\
# Machine code, before and after

`python -m tests.gpuless.changes {commit}`: {common:,} rows of gpu_kernels.csv (kernel, type, architecture, elements a
thread) stand in both versions, {same:,} of them with the same figures; {gone:,} of the earlier version are gone and
{new:,} are new. Below are the others' quotients now / then, least and most of each kernel's rows. What they come from:
[docs/gpu.md](../../docs/gpu.md#machine-code-that-changed).

| source | kernel | a thread | rows that differ | of | longest path | registers | occupancy | least occupancy now |
|---|---|---|---|---|---|---|---|---|
"""


def rows_of(text):
    return {tuple(row[name] for name in KEY): row for row in csv.DictReader(text.splitlines())}


def quotients(pairs, name):
    """Least and most of now / then."""
    found = sorted(float(now[name]) / float(then[name]) for then, now in pairs)
    return f"{found[0]:.2f} to {found[-1]:.2f}"


def kernel_of(row):
    """Source, the kernel's name (in Triton's rows the case stands behind it), elements a thread."""
    return row["source"], row["kernel"].replace("-", " ").split()[0], "1" if row["width"] == "1" else "more"


def table(before, after):
    """A row for each kernel with rows that differ."""
    differ, common = defaultdict(list), defaultdict(int)
    for key in before.keys() & after.keys():
        then, now = before[key], after[key]
        common[kernel_of(now)] += 1
        if then != now:
            differ[kernel_of(now)].append((then, now))
    for kernel, pairs in sorted(differ.items()):
        figures = [quotients(pairs, name) for name in ("instructions_per_element", "registers", "occupancy")]
        least = min(float(now["occupancy"]) for _, now in pairs)
        yield [*kernel, str(len(pairs)), str(common[kernel]), *figures, f"{least:.2f}"]


def main(commit):
    name = "gpu_kernels.csv"
    earlier = subprocess.run(
        ["git", "show", f"{commit}:bench/results/{name}"], cwd=RESULTS, check=True, capture_output=True, text=True
    ).stdout
    before, after = rows_of(earlier), rows_of((RESULTS / name).read_text())
    common = before.keys() & after.keys()
    head = HEAD.format(
        commit=commit,
        common=len(common),
        same=sum(before[key] == after[key] for key in common),
        gone=len(before.keys() - after.keys()),
        new=len(after.keys() - before.keys()),
    )
    body = "".join(f"| {' | '.join(row)} |\n" for row in table(before, after))
    (RESULTS / "gpu_kernels_changes.md").write_text(head + body)


if __name__ == "__main__":
    main(*sys.argv[1:])
