"""Figures: panels, files, and what was recorded of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .errors import RunError
from .files import write_whole


def panels(rows: int, columns: int, size: tuple[float, float], sharex: bool = False) -> Any:
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


def recorded(seen: Any, sample: int) -> Any:
    """What a `fastsnn.recorder.Record` saw of one sample: a row of panels a layer."""
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
    figure = panels(len(layers), bool(rates) + len(columns), (4, 2))
    axes = iter(figure.axes)
    for layer in layers:
        if rates:
            axis = next(axes)
            axis.plot(range(1, len(rates[layer]) + 1), rates[layer], marker=".")
            axis.set(title=f"{layer}: firing rate", xlabel="t")
        for name, of in columns.items():
            _neurons(of.get(layer), sample, f"{layer}: {name}", next(axes))
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
