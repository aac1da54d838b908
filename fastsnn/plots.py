"""Figures of a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .errors import RunError
from .files import write_whole
from .potentials import Potentials

if TYPE_CHECKING:
    from .recorder import Record


def _panels(rows: int, columns: int, size: tuple[float, float], sharex: bool = False) -> Any:
    """A figure of rows * columns panels of `size` inches. Raises RunError, with the remedy, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RunError("figures need matplotlib: pip install 'fastsnn[train]'") from error
    figure = Figure((columns * size[0], rows * size[1]), layout="constrained")
    figure.subplots(rows, columns, sharex=sharex)
    return figure


def save(figure: Any, path: Path) -> None:
    """As PNG."""
    write_whole(path, lambda file: figure.savefig(file, dpi=110, format="png"))


def curves(metrics: dict[str, Any], potentials: Potentials) -> Any:
    """Loss, accuracy and firing rates against the epoch; where a run has them, the separable shares of EM-PF layers,
    the histogram of every layer's potential at the last step, and Z-scores against the layer at the first and the last.
    """
    epochs, config = metrics["epochs"], metrics["config"]
    drawn = [
        partial(_splits, epochs, "loss", "loss (sum over T)"),
        partial(_splits, epochs, "accuracy", "accuracy"),
        partial(_layers, epochs, "firing_rates", "firing rate (spikes per neuron and step)"),
    ]
    if epochs[-1]["separable_shares"]:
        drawn.append(partial(_layers, epochs, "separable_shares", "separable share (fires at all steps or none)"))
    if potentials.layers:
        drawn.append(partial(_last_step, potentials))
    if "z_scores" in epochs[-1]:
        drawn.append(partial(_z_scores, epochs[-1]["z_scores"]))
    figure = _panels(1, len(drawn), (4.5, 4))
    figure.suptitle(f"{config['data']}, {config['rule']}, mode {config['mode']}, T = {config['steps']}")
    for axis, draw in zip(figure.axes, drawn, strict=True):
        draw(axis)
        if axis.has_data():
            axis.legend(fontsize=8)
    return figure


def _splits(epochs: list[dict[str, Any]], name: str, title: str, axis: Any) -> None:
    for split in ("train", "test"):
        axis.plot([row["epoch"] for row in epochs], [row[f"{split}_{name}"] for row in epochs], marker=".", label=split)
    axis.set(title=title, xlabel="epoch")


def _layers(epochs: list[dict[str, Any]], name: str, title: str, axis: Any) -> None:
    for layer in epochs[-1][name]:
        values = [row[name][layer] for row in epochs]
        axis.plot([row["epoch"] for row in epochs], values, marker=".", label=f"module {layer}")
    axis.set(title=title, xlabel="epoch")


def _last_step(potentials: Potentials, axis: Any) -> None:
    for layer, steps in potentials.layers.items():
        _density(steps[-1], axis, f"module {layer}")
    _threshold(potentials, axis)
    axis.set(title=f"potential {potentials.kind}, step T", xlabel=potentials.kind, ylabel="density")


def _z_scores(z_scores: dict[str, list[float]], axis: Any) -> None:
    steps = len(next(iter(z_scores.values())))
    for t in sorted({0, steps - 1}):
        axis.plot([*z_scores], [z[t] for z in z_scores.values()], marker=".", label=f"t = {t + 1}")
    axis.set(title="Z = (threshold - mean of u)/std of u", xlabel="module")


def histograms(potentials: Potentials) -> Any:
    """The distribution of every layer's potential at every step, a row of panels a layer (RPTT, figures 4 to 7)."""
    steps = len(next(iter(potentials.layers.values())))
    figure = _panels(len(potentials.layers), steps, (2.4, 2), sharex=True)
    figure.suptitle(f"distribution of the potential {potentials.kind}")
    figure.supxlabel(f"potential {potentials.kind}")
    figure.supylabel("density")
    panels = iter(figure.axes)
    for layer, values in potentials.layers.items():
        for t in range(steps):
            axis = next(panels)
            _density(values[t], axis, None)
            _threshold(potentials, axis)
            axis.set_title(f"module {layer}, t = {t + 1}", fontsize=8)
            axis.tick_params(labelsize=7)
    return figure


def recorded(seen: Record, sample: int) -> Any:
    """What `fastsnn.record` saw of one sample: a row of panels a layer."""
    kinds = {"spikes": seen.spikes, "potential v": seen.potentials, "trace a": seen.traces}
    columns = {name: of for name, of in kinds.items() if of}
    rates = seen.rates
    known = set(rates).union(*columns.values())
    layers = [name for name in seen.neurons if name in known]
    if not layers:
        raise ValueError("nothing was recorded: run the network inside the with block")
    for name, of in columns.items():
        batch = min(len(values[0]) for values in of.values())
        if not 0 <= sample < batch:
            raise ValueError(f"sample is {sample}; {name} was recorded of {batch}, so it must be in 0..{batch - 1}")
    figure = _panels(len(layers), bool(rates) + len(columns), (4, 2))
    panels = iter(figure.axes)
    for layer in layers:
        if rates:
            axis = next(panels)
            axis.plot(range(1, len(rates[layer]) + 1), rates[layer], marker=".")
            axis.set(title=f"{layer}: firing rate", xlabel="t")
        for name, of in columns.items():
            _neurons(of.get(layer), sample, f"{layer}: {name}", next(panels))
    return figure


def _neurons(values: Any, sample: int, title: str, axis: Any) -> None:
    """Neurons against steps of [T, N, *]; an empty panel where a layer has none."""
    axis.set(title=title, xlabel="t", ylabel="neuron")
    if values is None:
        return
    shown = values[:, sample].flatten(1).cpu().double().numpy().T  # [neurons, T]
    colours = "binary" if values.dtype is torch.bool else "viridis"
    edges = (0.5, shown.shape[1] + 0.5, shown.shape[0] - 0.5, -0.5)
    image = axis.imshow(shown, aspect="auto", interpolation="nearest", cmap=colours, extent=edges)
    if values.dtype is not torch.bool:
        axis.figure.colorbar(image, ax=axis)


def _density(values: Any, axis: Any, label: str | None) -> None:
    finite = values[values.isfinite()].double().numpy()
    if len(finite):
        axis.hist(finite, bins=100, density=True, histtype="step", label=label)


def _threshold(potentials: Potentials, axis: Any) -> None:
    if potentials.threshold is not None:
        axis.axvline(potentials.threshold, color="grey", linestyle=":", label="threshold")
