"""Nsight Compute on the step kernels: throughput, sectors a request, occupancy, registers."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import fastsnn
from fastsnn.nn import plain

from .target import Stage

METRICS = {
    "gpu__time_duration.sum": "ns",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "dram_percent",
    "dram__bytes.sum": "dram_bytes",
    "launch__registers_per_thread": "registers",
    "launch__occupancy_limit_registers": "blocks_by_registers",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy_percent",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio": "sectors_a_load",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio": "sectors_a_store",
    "smsp__inst_executed.sum": "warp_instructions",
    "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio": "stalled_on_memory",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "sm_percent",
}
N = 2**26
OURS = "regex:lif_|osr_|empf_"


def worker() -> None:
    """What is profiled: each kernel once more after its first launch."""
    for dtype in (torch.float32, torch.bfloat16):
        for backend in ("cuda", "triton"):
            with fastsnn.use_backend(backend):
                x = torch.randn(N, device="cuda", dtype=dtype, requires_grad=True)
                g = torch.randn_like(x)
                for rule in ("sltt", "ottt"):
                    layer = fastsnn.LIF.for_rule(rule).train()
                    for _ in range(2):
                        torch.autograd.grad(plain(layer(x)), x, g)
                rows = x.detach().view(16, N // 16).requires_grad_()
                layer = fastsnn.LIF(step_mode="m")
                torch.autograd.grad(layer(rows), rows, g.view_as(rows))
                del x, g, rows, layer
                torch.cuda.empty_cache()


def number(text: str) -> float:
    return float(text.replace(",", "") or "nan")


def parse(text: str) -> list[dict[str, Any]]:
    """A row a launch, from ncu's CSV in long form."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        return []
    launches: dict[str, dict[str, Any]] = {}
    for line in csv.DictReader(io.StringIO("\n".join(lines[start:]))):
        row = launches.setdefault(line["ID"], {"case": line["Kernel Name"][:160]})
        name = METRICS.get(line["Metric Name"])
        if name:
            unit = line.get("Metric Unit", "")
            scale = {"us": 1e3, "ms": 1e6, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}.get(unit, 1.0)
            row[name] = number(line["Metric Value"]) * scale
    return list(launches.values())


def static_registers(name: str, path: Path) -> int | None:
    """Of one of the CUDA core's LIF kernels, as the machine code of compute capability 9.0 has them."""
    found = re.match(r"void fastsnn::(?:\w+::)*(lif_\w+)_kernel<(\w+), (\d), (?:(\d), )?(\d), \w+>", name)
    if not found or not path.exists():
        return None
    kernel, dtype, reset, part, width = found.groups()
    words = [kernel, ("soft", "hard")[int(reset)]]
    if part:
        parts = ("none", "ottt", "ndot", "ndot_released") if kernel == "lif_forward" else ("recomputed", "saved")
        words.append(parts[int(part)])
    key = (" ".join(words), {"float": "float32", "__nv_bfloat16": "bfloat16", "__half": "float16"}.get(dtype), width)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if (row["kernel"], row["dtype"], row["width"]) == key and (row["source"], row["arch"]) == ("cuda", "90"):
                return int(row["registers"])
    return None


def run(stage: Stage) -> None:
    ncu = shutil.which("ncu")
    if not stage.target.is_gpu or ncu is None:
        stage.row(case="ncu", error="ncu is not on PATH" if stage.target.is_gpu else "needs a device")
        return
    command = [ncu, "--csv", "--print-units", "base", "--clock-control", "none", "--cache-control", "all"]
    command += ["--kernel-name", OURS, "--metrics", ",".join(METRICS), "--target-processes", "all"]
    command += [sys.executable, "-m", __name__, "worker"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(stage.left() - 3, 1), env=os.environ)
        text, error = done.stdout, done.stderr[-600:] or done.stdout[-600:]
    except subprocess.TimeoutExpired as late:
        text, error = (late.stdout or b"").decode(), "did not end in its time"
    rows = parse(text)
    table = Path(stage.target.tests).parent / "bench" / "results" / "gpu_kernels.csv"
    for row in rows:
        static = static_registers(row["case"], table)
        stage.row(**row, **({} if static is None else {"static": static}))
    if not rows:
        stage.row(case="ncu", error=error)


if __name__ == "__main__" and sys.argv[1:] == ["worker"]:
    worker()
