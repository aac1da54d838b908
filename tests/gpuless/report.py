"""What can be shown of the GPU kernels without a GPU, as committed files:

    python -m tests.gpuless.report

compiles Triton's kernels, reads the machine code of both sources, counts launches, executes PTX, and writes
bench/results/gpu_kernels.csv (every kernel and architecture) and gpu_kernels.md.
"""

import csv
from itertools import groupby
from pathlib import Path

from fastsnn._bench import roofline

import fastsnn
from fastsnn.backends import cuda

from . import executed, kernels, launch_counts, machine_code

RESULTS = Path(__file__).parents[2] / "bench" / "results"
NEURONS = 2**21
TRITON = "^(forward|backward|standardize)"  # cases of the LIF family and of weight standardisation
COLUMNS = (
    "source,kernel,dtype,arch,width,threads,registers,spills,shared,occupancy,narrow,fma,instructions_per_element"
).split(",")
LEGEND = """\
Compiled by nvcc and by Triton for compute capabilities {archs}; every row is the worst over them, every kernel and
architecture is in [gpu_kernels.csv](gpu_kernels.csv). **width**: elements that a thread takes at once, 16
bytes of the state for LIF and else of the input;
**spills**: instructions that touch local memory; **occupancy**: least share of an SM's threads that can be resident;
**narrow**: accesses to global memory in the vector body below such a vector of the input (standardize: per row, not per
element);
**FMA**: fused multiply-adds, which only divisions may hold; **instructions**: longest path of a step, per element."""
UNVERIFIED = """\
Not shown here: the step from PTX to machine code in execution (the machine code is read, not run), launches, streams
and graph capture on a real device, errors of approximate instructions, and every time. `fastsnn bench --gpu-report`
measures all of it on a machine with a GPU."""


def machine_rows():
    """One row a kernel and architecture."""
    archs = [int(arch) for arch in cuda._cuda.archs.split(";")]
    for kernel in [*kernels.cuda_kernels(archs), *kernels.triton_kernels(archs, TRITON)]:
        code = kernel.code
        yield {
            "source": kernel.source,
            "kernel": kernel.name,
            "dtype": kernel.dtype,
            "arch": kernel.arch,
            "width": kernel.width,
            "threads": kernel.threads,
            "registers": code.registers,
            "spills": code.count(machine_code.LOCAL),
            "shared": code.shared,
            "occupancy": round(kernel.occupancy, 3),
            "narrow": len(kernel.narrow(code.body)) if kernel.width > 1 else 0,
            "fma": code.count(machine_code.FUSED),
            "instructions_per_element": round(code.longest_path / kernel.width, 1),
        }


def table(columns, rows):
    """Markdown."""
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join(lines + [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows])


def worst(rows):
    """Rows of kernels that take whole vectors, each the worst over the architectures."""
    named = lambda row: (row["source"], row["kernel"], row["dtype"], row["width"])  # noqa: E731
    vectors = sorted((row for row in rows if row["width"] > 1), key=named)
    for (source, kernel, dtype, width), group in groupby(vectors, named):
        group = list(group)
        most = [max(row[column] for row in group) for column in ("registers", "spills")]
        least = f"{min(row['occupancy'] for row in group):.0%}"
        rest = [max(row[column] for row in group) for column in ("narrow", "fma", "instructions_per_element")]
        yield source, kernel, dtype, width, *most, least, *rest


def machine_section(rows):
    columns = "source,kernel,dtype,width,registers,spills,occupancy,narrow,FMA,instructions".split(",")
    archs = ", ".join(f"{arch // 10}.{arch % 10}" for arch in sorted({row["arch"] for row in rows}))
    return ["## Machine code", LEGEND.format(archs=archs), table(columns, worst(rows))]


def launch_section():
    cells = [(row.case, row.provider, row.forward, row.backward) for row in launch_counts.rows()]
    text = "Kernels that a call of a layer and its backward start; of torch: operations that are no view or allocation."
    return ["## Launches", text, table(("case", "provider", "forward", "backward"), cells)]


def executed_section(rows):
    text = (
        "Compiled PTX (sm_80), executed instruction by instruction on the CPU, per neuron and step. Sectors of 32 "
        "bytes: used share of those a warp's request touches, and of those the whole kernel touches."
    )
    columns = "source,kernel,dtype,T,read (B),written (B),sectors a request,sectors a kernel,instructions,FMA,launches"
    cells = [
        (
            row.source,
            row.name,
            row.dtype,
            row.T or "step",
            f"{row.bytes_read:g}",
            f"{row.bytes_written:g}",
            f"{row.sector_use:.0%}",
            f"{row.unique_sector_use:.0%}",
            f"{row.instructions:.1f}",
            f"{row.fmas:g}",
            row.launches,
        )
        for row in rows
    ]
    return ["## Executed PTX", text, table(columns.split(","), cells)]


def predictions(rows, counted):
    """A line a step kernel of the CUDA core and device: bytes as executed, instructions as in the machine code."""
    names = {
        "lif_forward soft none": "forward sltt step",
        "lif_forward soft ottt": "forward ottt step",
        "lif_forward soft ndot": "forward ndot step",
        "lif_backward_online soft saved": "backward sltt step",
    }
    moved = {(row.name, row.dtype): row.bytes_read + row.bytes_written for row in counted if row.source == "cuda"}
    for row in rows:
        key = names.get(row["kernel"]), row["dtype"]
        if row["source"] == "cuda" and row["width"] > 1 and key in moved:
            for device in roofline.DEVICES:
                if device.arch == row["arch"]:
                    guess = roofline.predict(device, NEURONS, moved[key], row["instructions_per_element"])
                    limits = [f"{seconds * 1e6:.1f}" for seconds in (guess.memory, guess.issue, guess.launch)]
                    yield *key, device.name, f"{moved[key]:g}", *limits, guess.limit, f"{guess.share:.0%}"


def roofline_section(rows, counted):
    text = (
        f"**Predictions, not measurements**, for one launch over {NEURONS:,} neurons, from published limits: memory "
        "(bytes over bandwidth), issue (instructions over half of the float32 FLOP/s) and launch (assumed "
        f"{roofline.LAUNCH * 1e6:g} us); the largest holds."
    )
    columns = "kernel,dtype,device,B a neuron,memory (us),issue (us),launch (us),limit,share of bandwidth".split(",")
    return ["## Roofline", text, table(columns, predictions(rows, counted))]


def markdown(rows, counted):
    sections = [f"# GPU kernels of fastsnn {fastsnn.__version__}, without a GPU", UNVERIFIED]
    sections += [
        *launch_section(),
        *executed_section(counted),
        *roofline_section(rows, counted),
        *machine_section(rows),
    ]
    return "\n\n".join(sections) + "\n"


def main():
    rows, counted = list(machine_rows()), executed.rows()
    with (RESULTS / "gpu_kernels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (RESULTS / "gpu_kernels.md").write_text(markdown(rows, counted))


if __name__ == "__main__":
    main()
