"""Small spiking transformers on the digits, online and through time, and what replaces batch norm in a Spikformer:
`python -m bench.spikformer_digits`.

Spikformer-1-32, two heads, 4x4 positions, T = 4, 6 epochs: BPTT, SLTT and OTTT (these in mode O) with standardised
weights, and OTTT with the other norms. "folded": batch norm for 3 epochs, its statistics then folded into the
convolutions' weights and biases, which learn on as they are; one learning-rate schedule for both halves. "none" is the
same network from the start. QKFormer (32 channels, a block a stage) and Spike-driven Transformer-1-32 with standardised
weights, the same otherwise. Five seeds, one thread. Writes spikformer_digits.csv (one row a run) and
spikformer_digits.md (mean and spread) into bench/results, and the same of transformers_digits.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastsnn.nn import fold
from fastsnn.nn.osr import OSR
from fastsnn.recipes import Recipe
from fastsnn.rules import RULES
from fastsnn.train.experiment import Experiment

from .accuracy import Row, compare, train

COMMON: dict[str, Any] = {"paper": "", "data": "digits", "steps": 4, "epochs": 6}
COMMON |= {"batch_size": 64, "lr": 0.05, "mse": 0.05}
SIZES: dict[str, Row] = {
    "spikformer": {"depth": 1, "channels": 32, "heads": 2, "poolings": 1},
    "qkformer": {"depths": [1, 1, 1], "channels": 32, "heads": 2},
    "spike_driven_transformer": {"depth": 1, "channels": 32, "poolings": 1},
}
SHOWN = {"qkformer": "QKFormer", "spike_driven_transformer": "Spike-driven Transformer"}
FOLDED = {"name": "folded-ottt"}


def case(norm: str, rule: str, model: str = "spikformer") -> Row:
    """Fields of a recipe."""
    mode = "O" if RULES[rule].online else "A"
    fields = {"name": f"{norm}-{rule}", "norm": norm, "rule": rule, "mode": mode}
    return {**COMMON, **fields, "model": model, "model_options": SIZES[model]}


def cases() -> dict[str, Row]:
    """By the row's name."""
    compared = [("sws", "bptt"), ("sws", "sltt"), ("sws", "ottt"), ("osr", "ottt"), ("osr+ots", "ottt"), ("bn", "ottt")]
    compared += [("none", "ottt")]
    rows = {f"{rule}, {norm}": case(norm, rule) for norm, rule in compared}
    return rows | {"ottt, bn, then folded": case("bn", "ottt") | FOLDED}


def others() -> dict[str, Row]:
    """The other transformers, by the row's name."""
    rules = ("bptt", "sltt", "ottt")
    return {f"{SHOWN[model]}, {rule}": case("sws", rule, model) for model in SHOWN for rule in rules}


def folded(net: nn.Module) -> dict[str, Any]:
    """The state of the network of norm "none" that does what this one of norm "bn" does in evaluation."""
    net.eval()
    found = [(name, layer) for name, layer in net.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear, OSR))]
    state = {}
    for (name, layer), (_, behind) in pairwise([*found, ("", None)]):
        if not isinstance(layer, OSR):
            plain = fold(layer, behind) if isinstance(behind, OSR) else layer
            state |= {f"{name}.{key}": value for key, value in plain.state_dict().items()}
    return state


def halfway(experiment: Experiment) -> None:
    """Stops a run at the end of half of its epochs."""
    progress = experiment.progress
    experiment.stop = progress.epoch + 1 == experiment.config.epochs // 2 and progress.batch == experiment.batches


def learn(seed: int, **options: Any) -> Experiment:
    """As `train`; the case that folds goes on as a run of norm "none" with the weights, epochs and schedule so far."""
    if options["name"] != FOLDED["name"]:
        return train(seed, **options)
    recipe = Recipe(seed=seed, **options)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first = Experiment(recipe, Path(one))
        first.run(halfway)
        second = Experiment(replace(recipe, norm="none"), Path(other))
        second.net.load_state_dict(folded(first.net))
        second.progress = first.progress
        second.scheduler.load_state_dict(first.scheduler.state_dict())
        second.trainer.optimizer.param_groups[0]["lr"] = first.scheduler.get_last_lr()[0]
        second.run()
    return second


if __name__ == "__main__":
    torch.set_num_threads(1)
    compare(cases(), "spikformer_digits", learn)
    compare(others(), "transformers_digits")
