"""rows.jsonl as report.md, and its first lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]

FIRST = ("case", "backend", "provider", "variant", "mode", "dtype", "n")
TEXTS = {
    "families": "Every family and step against the CPU kernels on the same numbers, memory that no kernel wrote being "
    "NaN: float32 recurrences bit for bit, the rest to the stated tolerance.",
    "suite": "The parity suite and the device's own tests. A skipped parity test counts as failed.",
    "bandwidth": "Kernels beyond the L2 cache, queued, by events; copy: as many bytes by `copy_`, beside them.",
    "latency": "Forward and backward of a small layer: the host's time a call without waiting, the device's by "
    "events, and a step in a captured graph of 16.",
    "layers": "Training batches until the device has done them; training steps of norms and neurons; packed products. "
    "TF32 is off but where it is named.",
    "capture": "A training step in a captured graph.",
    "profile": "Nsight Compute, caches flushed. The first of two launches of a rule has no state to read yet. static: "
    "registers in the machine code, of gpu_kernels.csv.",
}


def read(folder: Path) -> list[Row]:
    path = folder / "rows.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value).replace("|", "/").replace("\n", " ")


def named(row: Row) -> tuple[str, ...]:
    """The row's columns, those that name it first."""
    keys = [key for key in row if key not in ("stage", "trace", "problem")]
    return tuple(sorted(keys, key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST)))


def table(columns: tuple[str, ...], rows: list[Row]) -> list[str]:
    lines = ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(cell(row.get(column, "")) for column in columns) + " |" for row in rows]


def tables(rows: list[Row]) -> list[str]:
    """One table for all rows of the same columns."""
    kinds = dict.fromkeys(named(row) for row in rows)
    return [line for columns in kinds for line in table(columns, [row for row in rows if named(row) == columns])]


def families_table(rows: list[Row]) -> list[str]:
    """A line a family, a column a backend and dtype; what is wrong follows in full."""
    places = sorted({f"{row.get('backend', '')} {row['dtype']}" for row in rows})
    found = {(row["case"], f"{row.get('backend', '')} {row['dtype']}"): row for row in rows}
    lines = [
        {"case": case} | {place: "right" if found.get((case, place), {}).get("ok") else "WRONG" for place in places}
        for case in dict.fromkeys(row["case"] for row in rows)
    ]
    return [*table(("case", *places), lines), *tables([row for row in rows if not row.get("ok")])]


def text_of(row: Row) -> str:
    return " ".join(f"{key}={cell(value)}" for key, value in row.items() if key != "trace")


def stage_line(stage: str, rows: list[Row]) -> str:
    took = next((row for row in rows if row["case"] == "took"), None)
    checked = [row for row in rows if "ok" in row]
    words = [f"{stage}: {sum(row['case'] != 'took' for row in rows)} rows"]
    words += [f"in {took['seconds']:.0f} s"] if took else []
    words += [f"({took['problem']})"] if took and took.get("problem") else []
    words += [f"{sum(bool(row['ok']) for row in checked)} of {len(checked)} right"] if checked else []
    return ", ".join(words)


def measured_lines(rows: list[Row]) -> list[str]:
    lines = []
    for row in rows:
        if row["stage"] == "bandwidth" and "share" in row:
            name = f"{row['backend']:9} {row['case']:19} {row['dtype']:8} {row['mode']:8}"
            lines.append(f"{name} {row['us']:9.1f} us, {row['share']:.0%} of a copy")
    for row in rows:
        if row["stage"] == "layers" and "ms" in row:
            lines.append(f"{row['case']:26} {row['provider']:15} {row['ms']:8.2f} ms")
    return lines


def summary(rows: list[Row]) -> tuple[list[str], bool]:
    """At most 60 lines: what is wrong first, then what was measured; and whether nothing is wrong."""
    stages = dict.fromkeys(row["stage"] for row in rows)
    wrong = [row for row in rows if row.get("ok") is False or row.get("problem")]
    lost = [row for row in rows if "error" in row and row.get("ok") is not False]
    lines = [stage_line(stage, [row for row in rows if row["stage"] == stage]) for stage in stages]
    lines += ["WRONG: " + text_of(row)[:300] for row in wrong[:12]]
    lines += ["no result: " + text_of(row)[:200] for row in lost[:8]]
    return (lines + measured_lines(rows))[:60], not wrong


def section(stage: str, rows: list[Row]) -> list[str]:
    rows = [row for row in rows if row["case"] != "took"]
    lines = ["", f"## {stage[0].upper()}{stage[1:]}"]
    lines += ["", TEXTS[stage]] if stage in TEXTS else []
    return lines + (families_table(rows) if stage == "families" else tables(rows))


def write(folder: Path) -> tuple[list[str], bool]:
    """Writes report.md. Returns the summary's lines and whether nothing is wrong."""
    rows = read(folder)
    lines, right = summary(rows)
    text = ["# Device report", "", "```", *lines, "```"]
    for stage in dict.fromkeys(row["stage"] for row in rows):
        text += section(stage, [row for row in rows if row["stage"] == stage])
    (folder / "report.md").write_text("\n".join(text) + "\n")
    return lines, right
