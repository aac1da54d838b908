"""One CSV row a measurement."""

from __future__ import annotations

import csv
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import torch

import fastsnn


@dataclass(frozen=True)
class Row:
    """A measurement and all that it depends on; the fields are the CSV's columns."""

    case: str
    kernel: str
    provider: str
    mode: str
    dtype: str
    size: int
    metric: str
    unit: str
    p20: float
    p50: float
    p80: float
    repetitions: int
    allocator: str
    threads: int
    torch: str
    fastsnn: str
    peer: str
    cpu: str
    isa: str
    device: str
    date: str


@dataclass
class Run:
    """What the children returned. refused: cases that are not reported, with the reason."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def add(self, outcome: dict[str, Any]) -> None:
        self.rows += [Row(**row) for row in outcome["rows"]]
        self.notes += [note for note in outcome["notes"] if note not in self.notes]
        why = outcome.get("refused")
        if why and why not in self.refused:
            self.refused.append(why)


def row(peer: str = "", allocator: str = "default", device: str = "cpu", **measured: Any) -> Row:
    """A measurement with this process's settings and versions filled in."""
    return Row(
        **measured, peer=peer, allocator=allocator, device=device, threads=torch.get_num_threads(), **environment()
    )


@cache
def environment() -> dict[str, str]:
    """Versions, processor and day."""
    return {
        "torch": torch.__version__,
        "fastsnn": fastsnn.__version__,
        "cpu": cpu_name(),
        "isa": isa(),
        "date": date.today().isoformat(),
    }


def cpu_name() -> str:
    """The processor's name, as Linux tells it, or the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def isa() -> str:
    """The instruction set of the native core, 'none' where it is not installed."""
    try:
        from fastsnn import _cpu
    except ImportError:
        return "none"
    return _cpu.isa()


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """All rows under one header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
