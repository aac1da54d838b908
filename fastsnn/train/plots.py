"""Figures of a run."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..figures import panels
from .potentials import Potentials


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
    figure = panels(1, len(drawn), (4.5, 4))
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
    figure = panels(len(potentials.layers), steps, (2.4, 2), sharex=True)
    figure.suptitle(f"distribution of the potential {potentials.kind}")
    figure.supxlabel(f"potential {potentials.kind}")
    figure.supylabel("density")
    axes = iter(figure.axes)
    for layer, values in potentials.layers.items():
        for t in range(steps):
            axis = next(axes)
            _density(values[t], axis, None)
            _threshold(potentials, axis)
            axis.set_title(f"module {layer}, t = {t + 1}", fontsize=8)
            axis.tick_params(labelsize=7)
    return figure


def _density(values: Any, axis: Any, label: str | None) -> None:
    finite = values[values.isfinite()].double().numpy()
    if len(finite):
        axis.hist(finite, bins=100, density=True, histtype="step", label=label)


def _threshold(potentials: Potentials, axis: Any) -> None:
    if potentials.threshold is not None:
        axis.axvline(potentials.threshold, color="grey", linestyle=":", label="threshold")
