"""One plot per allocator: median times on a logarithmic scale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .report import Rows, distinct

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "fastsnn": "#d1495b",
    "fastsnn-reference": "#edae49",
    "torch.compile": "#66a182",
    "spikingjelly": "#2e4057",
    "snntorch": "#00798c",
    "torch": "#6c757d",
    "batchnorm": "#2e4057",
    "batchnorm+spikingjelly": "#2e4057",
    "autograd-floor": "#adb5bd",
    "function-floor": "#ced4da",
    "without": "#adb5bd",
    "sgd": "#adb5bd",
    "copy": "#adb5bd",
    "copy-layer": "#ced4da",
}
COLUMNS = 3


def save(rows: Rows, out: Path) -> list[str]:
    """Write results-ALLOCATOR.png into `out`; returns a note where matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return ["matplotlib is not installed: no plots"]
    times = [row for row in rows if row.metric == "time"]
    for allocator in distinct(row.allocator for row in times):
        _figure([row for row in times if row.allocator == allocator], out / f"results-{allocator}.png")
    return []


def _figure(rows: Rows, path: Path) -> None:
    """A panel per case."""
    from matplotlib.figure import Figure

    names = distinct(row.case for row in rows)
    columns = min(COLUMNS, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(5.6 * columns, 4 * lines), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis, name in zip(axes, names, strict=False):
        _panel(axis, [row for row in rows if row.case == name])
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    first = rows[0]
    figure.suptitle(f"Median time of a call: {first.allocator} allocator, {first.threads} threads, {first.cpu}")
    figure.savefig(path, dpi=120)


def _panel(axis: Axes, rows: Rows) -> None:
    """Time by size, a bar per provider with its ratio to fastsnn's; whiskers from p20 to p80. The last mode
    stands for the case."""
    rows = [row for row in rows if row.mode == rows[-1].mode]
    sizes, providers = distinct(row.size for row in rows), distinct(row.provider for row in rows)
    ours = {row.size: row.p50 for row in rows if row.provider == "fastsnn"}
    width = 0.84 / len(providers)
    for i, provider in enumerate(providers):
        mine = [row for row in rows if row.provider == provider]
        at = [sizes.index(row.size) + (i + 0.5) * width - 0.42 for row in mine]
        spread = [[row.p50 - row.p20 for row in mine], [row.p80 - row.p50 for row in mine]]
        heights = [row.p50 for row in mine]
        axis.bar(
            at,
            heights,
            0.92 * width,
            yerr=spread,
            color=COLOURS.get(provider, f"C{i}"),
            label=provider,
            ecolor="#495057",
        )
        for x, row in zip(at, mine, strict=True):
            axis.text(x, 1.1 * row.p80, f"{row.p50 / ours[row.size]:.2g}x", ha="center", fontsize=7)
    axis.set(title=f"{rows[0].case} ({rows[0].mode})", xlabel="size", ylabel="us", yscale="log")
    # room for the legend above, and bars that all rise from one decade below the fastest
    axis.set_ylim(min(row.p20 for row in rows) / 10, max(row.p80 for row in rows) * 10)
    axis.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    axis.legend(frameon=False, fontsize="small", ncols=2, loc="upper left")
