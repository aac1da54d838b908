"""Curves of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from .experiment import RunError, write_whole


def curves(metrics: dict[str, Any], potentials: dict[str, Tensor], threshold: float | None, path: Path) -> None:
    """Loss, accuracy, firing rates, per layer the histogram of the potential at the last step and, where there are
    Z-scores, these against the layer at the first and the last step, as one PNG.

    Dashed beside the firing rates: the separable shares of EM-PF layers.

    Raises RunError, with the remedy, without matplotlib.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise RunError("curves.png needs matplotlib: pip install 'fastsnn[train]'") from error
    epochs = metrics["epochs"]
    x = [row["epoch"] for row in epochs]
    z_scores = epochs[-1].get("z_scores")
    panels = 5 if z_scores else 4
    figure, axes = plt.subplots(1, panels, figsize=(4.5 * panels, 4), layout="constrained")
    config = metrics["config"]
    figure.suptitle(f"{config['data']}, {config['rule']}, mode {config['mode']}, T = {config['steps']}")
    for split in ("train", "test"):
        axes[0].plot(x, [row[f"{split}_loss"] for row in epochs], marker=".", label=split)
        axes[1].plot(x, [100 * row[f"{split}_accuracy"] for row in epochs], marker=".", label=split)
    for name in epochs[-1]["firing_rates"]:
        axes[2].plot(x, [row["firing_rates"][name] for row in epochs], marker=".", label=f"layer {name}")
    axes[2].set_prop_cycle(None)
    for name in epochs[-1]["separable_shares"]:
        axes[2].plot(x, [row["separable_shares"][name] for row in epochs], linestyle="--", label=f"separable, {name}")
    for name, v in potentials.items():
        axes[3].hist(v.double().numpy(), bins=100, density=True, histtype="step", label=f"layer {name}")
    if threshold is not None:
        axes[3].axvline(threshold, color="grey", linestyle=":", label="threshold")
    if z_scores:
        for t in sorted({0, config["steps"] - 1}):
            axes[4].plot([*z_scores], [z[t] for z in z_scores.values()], marker=".", label=f"t = {t + 1}")
    potential = "u before reset" if z_scores else "v after reset"
    titles = (
        ("loss (sum over T)", "epoch"),
        ("accuracy (%)", "epoch"),
        ("firing rate (spikes per neuron and step)", "epoch"),
        (f"potential {potential}, step T", "potential"),
        ("Z = (threshold - mean of u)/std of u", "layer"),
    )
    for axis, (title, label) in zip(axes, titles, strict=False):
        axis.set_title(title)
        axis.set_xlabel(label)
        if axis.has_data():
            axis.legend(fontsize=8)
    axes[3].set_ylabel("density")
    write_whole(path, lambda file: figure.savefig(file, dpi=110, format="png"))
    plt.close(figure)
