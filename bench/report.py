"""Bars and Markdown from rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean, mean
from typing import TypeVar

from .cases import CASES, Case
from .measure import FULL, QUICK
from .record import Row, Run

COUNTS_NOTE = (
    "saved_bytes: distinct storages that autograd keeps, beyond input, parameters and state. aten_ops: operations "
    "that reach a backend. peak_bytes: largest sum of live tensors while a small network is built and trained for "
    "one batch; size is T; memory inside operations is not seen."
)

Rows = Sequence[Row]
Item = TypeVar("Item", bound=Hashable)


def medians(rows: Iterable[Row], **where: object) -> dict[int, float]:
    """Median by size of the rows whose fields are as in `where`."""
    return {row.size: row.p50 for row in rows if all(getattr(row, field) == value for field, value in where.items())}


def ratios(rows: Rows, case: str, mode: str, peer: str, only: int | None = None) -> list[float]:
    """The peer's median time over fastsnn's at each size, or at the one of `only`, warm."""
    where = {"case": case, "mode": mode, "metric": "time", "allocator": "warm", "dtype": "float32"}
    ours, theirs = medians(rows, provider="fastsnn", **where), medians(rows, provider=peer, **where)
    return [theirs[size] / ours[size] for size in ours if size in theirs and only in (None, size)]


def faster(
    case: str,
    peer: str,
    mode: str = "full",
    size: int | None = None,
    over: Callable[[list[float]], float] = geometric_mean,
) -> Callable[[Rows], float]:
    """The ratios of a case at a size, or its sizes taken together by `over`."""
    return lambda rows: over(ratios(rows, case, mode, peer, size))


def cost(case: str, peer: str, over: Callable[[list[float]], float] = geometric_mean) -> Callable[[Rows], float]:
    """fastsnn's median time over the peer's, forward and backward."""
    return lambda rows: over([1 / ratio for ratio in ratios(rows, case, "full", peer)])


def memory_growth(mode: str) -> Callable[[Rows], float]:
    """Peak memory at the longest T over that at the shortest."""

    def growth(rows: Rows) -> float:
        peaks = medians(rows, case="peak_memory", provider="fastsnn", mode=mode)
        return peaks[max(peaks)] / peaks[min(peaks)]

    return growth


def share_equal(rows: Rows) -> float:
    """Share of the rules whose kernels equal the reference bit for bit."""
    return mean(row.p50 for row in rows if row.metric == "bitwise")


@dataclass(frozen=True)
class Bar:
    """A promise about the warm float32 rows: `value` is at least (or at most) `limit`. `value` raises ValueError
    where its rows are missing."""

    text: str
    sign: str
    limit: float
    value: Callable[[Rows], float]

    def line(self, rows: Rows) -> str:
        """Its row of the table: what, bar, measured, verdict."""
        try:
            value = self.value(rows)
        except ValueError:
            return f"| {self.text} | {self.sign} {self.limit:g} | - | not measured |"
        passed = value >= self.limit if self.sign == ">=" else value <= self.limit
        return f"| {self.text} | {self.sign} {self.limit:g} | {value:.3g} | {'PASS' if passed else 'FAIL'} |"


BN_SPIKINGJELLY = "batchnorm+spikingjelly"
BARS = (
    Bar("OTTT step, full: SpikingJelly / fastsnn, mean", ">=", 10, faster("ottt_step", "spikingjelly")),
    Bar("OTTT step, full: torch.compile / fastsnn, mean", ">=", 1.6, faster("ottt_step", "torch.compile")),
    Bar("OTTT step, full: torch.compile / fastsnn, least", ">=", 1, faster("ottt_step", "torch.compile", over=min)),
    Bar("BPTT sequence, full: SpikingJelly / fastsnn", ">=", 6, faster("bptt_sequence", "spikingjelly")),
    Bar("OTTT step bandwidth over that of copy_, same bytes", ">=", 1, faster("step_bandwidth", "copy", "forward")),
    Bar("Step overhead, full: SpikingJelly / fastsnn", ">=", 5, faster("step_overhead", "spikingjelly")),
    Bar("OTTT and convolution, full: SpikingJelly / fastsnn", ">=", 1.5, faster("ottt_conv_layer", "spikingjelly")),
    Bar("LIF step with MPDR / without, full, mean", "<=", 1.15, cost("mpdr_step", "without")),
    Bar("SGD step of ResNet-18 with STGR / without", "<=", 1.6, cost("stgr_step", "sgd")),
    Bar("OSR step, full: BatchNorm2d / fastsnn", ">=", 1, faster("osr_step", "batchnorm")),
    Bar("OSR and LIF, full: BatchNorm2d + SpikingJelly / fastsnn", ">=", 3, faster("osr_lif_step", BN_SPIKINGJELLY)),
    Bar("EM-PF I step, 2 Mi, full: PyTorch / fastsnn", ">=", 6, faster("empf_step", "torch", size=2**21)),
    Bar(
        "EM-PF I step, 2 Mi, full: torch.compile / fastsnn", ">=", 1.5, faster("empf_step", "torch.compile", size=2**21)
    ),
    Bar("EM-PF, inference: steps of I / all at once by III", ">=", 1.3, faster("empf_parallel", "steps-I", "forward")),
    Bar(
        "EM-PF, training: all steps / one drawn",
        ">=",
        1.8,
        faster("empf_random_back_propagation", "all-steps", "forward"),
    ),
    Bar("Packed linear, batch 1: torch / fastsnn", ">=", 8, faster("packed_linear", "torch", "forward", 1)),
    Bar("Packed linear, batch 64: torch / fastsnn", ">=", 1, faster("packed_linear", "torch", "forward", 64)),
    Bar("Packed convolution, batch 1: torch / fastsnn", ">=", 1.2, faster("packed_conv", "torch", "forward", 1)),
    Bar("The same, 75 % zeros: torch / fastsnn", ">=", 2, faster("packed_conv_sparse", "torch", "forward", 1)),
    Bar("Peak memory, longest T / shortest, mode O", "<=", 1.02, memory_growth("O")),
    Bar("Peak memory, longest T / shortest, mode A", "<=", 1.02, memory_growth("A")),
    Bar("Share of rules bitwise equal to the reference", ">=", 1, share_equal),
)


def bars_table(rows: Rows) -> str:
    """Every bar with its measured value, as Markdown."""
    head = ["| bar (warm allocator, float32) | limit | measured | verdict |", "|---|---|---|---|"]
    return "\n".join([*head, *(bar.line(rows) for bar in BARS)])


def duration(microseconds: float) -> str:
    """Three digits with a unit."""
    for unit, size in (("us", 1), ("ms", 1e3)):
        if microseconds < 999.5 * size:
            return f"{microseconds / size:.3g} {unit}"
    return f"{microseconds / 1e6:.3g} s"


def distinct(values: Iterable[Item]) -> list[Item]:
    """Each value once, in order."""
    return list(dict.fromkeys(values))


def time_table(rows: Rows) -> str:
    """One case under one allocator: median times, each with its ratio to fastsnn's."""
    providers = distinct(row.provider for row in rows)
    found = {(row.mode, row.size, row.provider): row.p50 for row in rows}
    lines = [f"| size | mode | {' | '.join(providers)} |", "|---" * (len(providers) + 2) + "|"]
    for mode, size in dict.fromkeys((row.mode, row.size) for row in rows):
        ours = found[mode, size, "fastsnn"]
        times = (found[mode, size, provider] for provider in providers)
        cells = (f"{duration(time)} ({time / ours:.2f}x)" for time in times)
        lines.append(f"| {size:,} | {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bandwidth_table(rows: Rows) -> str:
    """GB/s by provider."""
    lines = ["| provider | GB/s (p20, p50, p80) |", "|---|---|"]
    return "\n".join(lines + [f"| {r.provider} | {r.p20:.3g}, {r.p50:.3g}, {r.p80:.3g} |" for r in rows])


def count_table(rows: Rows) -> str:
    """Counts as they are."""
    lines = ["| case | provider | mode | size | metric | value |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.case} | {r.provider} | {r.mode} | {r.size:,} | {r.metric} ({r.unit}) | {r.p50:,.10g} |" for r in rows
    ]
    return "\n".join(lines)


def comparisons(rows: Rows) -> str:
    """Every case's median times, each with its ratio to fastsnn's."""
    timed = [row for row in rows if row.metric == "time"]
    tables = []
    for case, allocator in dict.fromkeys((row.case, row.allocator) for row in timed):
        mine = [row for row in timed if (row.case, row.allocator) == (case, allocator)]
        tables.append(f"{case}, {allocator} allocator\n{time_table(mine)}")
    return "\n\n".join(tables)


def _case_sections(case: Case, rows: Rows) -> list[str]:
    sections = [f"## {case.name} ({case.kernel})", case.note]
    for allocator in distinct(row.allocator for row in rows):
        mine = [row for row in rows if row.allocator == allocator]
        rates = [row for row in mine if row.metric == "bandwidth"]
        sections += [f"Allocator: {allocator}.", time_table([row for row in mine if row.metric == "time"])]
        sections += [bandwidth_table(rates)] if rates else []
    return sections


def markdown(run: Run, quick: bool, bars: bool = False) -> str:
    """The whole report; bars: with what this project holds itself to, and verdicts."""
    rows = run.rows
    sections = ["# Benchmark results"]
    if quick:
        sections.append("**Quick run: tiny sizes and few repetitions. Its times mean nothing.**")
    if rows:
        first, sample = rows[0], (QUICK if quick else FULL).sample
        peers = ", ".join(distinct(row.peer for row in rows if row.peer))
        sections.append(
            f"fastsnn {first.fastsnn}; {peers or 'no peers'}. {first.cpu}, {first.isa}, {first.threads} threads, "
            f"{first.date}. Medians of samples of {1e3 * sample:g} ms or more, the providers in turn; in parentheses "
            "the time over fastsnn's. Warm: buffers come without page faults; default: glibc's allocator as it comes."
        )
    sections += [bars_table(rows)] if bars else []
    for name, case in CASES.items():
        mine = [row for row in rows if row.case == name and row.metric in ("time", "bandwidth")]
        sections += _case_sections(case, mine) if mine else []
    counts = [row for row in rows if row.metric not in ("time", "bandwidth")]
    sections += ["## Counts", COUNTS_NOTE, count_table(counts)] if counts else []
    remarks = [f"- REFUSED: {why}" for why in run.refused] + [f"- {note}" for note in run.notes]
    sections += ["## Notes", "\n".join(remarks)] if remarks else []
    return "\n\n".join(sections) + "\n"
