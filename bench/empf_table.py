"""EM-PF's versions, attention and random back-propagation on the digits: `python -m bench.empf_table`.

Trains `fastsnn train --steps 4 --epochs 10 --seed S` with --rule ottt (a network of its own: three convolutions) and
--rule empf with five seeds, one thread, and writes empf.csv (one row a run) and empf.md (mean and spread) into
bench/results. The time is the processor's in the second epoch of runs of their own, which alternate, without
evaluation; it is shown against OTTT's of the same seed.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from fastsnn import deploy
from fastsnn.nn.empf import VERSIONS
from fastsnn.train.experiment import Experiment

from .accuracy import Row, by_rule, outcome, percent, run, span, write

VARIANTS: dict[str, Row] = {"": {}, " + SECA": {"seca": "II"}, ", random back-propagation": {"backward_steps": 1}}


def cases() -> dict[str, Row]:
    """Options of `fastsnn train` by the row's name."""
    common: dict[str, Any] = {"steps": 4, "epochs": 10}
    empf = {**common, "rule": "empf"}
    rows = {"ottt": {**common, "rule": "ottt"}, "I, float weights": {**empf, "version": "I", "weights": "float"}}
    for version in VERSIONS:
        rows |= {version + name: {**empf, "version": version, **options} for name, options in VARIANTS.items()}
    return rows


def measure(experiment: Experiment) -> Row:
    """Accuracy, and bytes of the network for inference."""
    sizes = deploy.sizes(deploy.pack(deploy.fold(experiment.net.eval())))
    return outcome(experiment) | {"weight_bytes": sizes.weight_bytes, "stored_bytes": sizes.stored_bytes}


def epoch_time(experiment: Experiment) -> Row:
    """Processor time of one more epoch."""
    config, data = experiment.config, experiment.data
    start = time.process_time()
    for x, y in data.train_batches(config.steps, config.batch_size, torch.arange(len(data.train_y))):
        experiment.trainer.train_batch(x, y)
    return {"seed": config.seed, "seconds_per_epoch": round(time.process_time() - start, 4)}


def table(rows: list[Row]) -> str:
    """Mean and standard deviation over the seeds; median of the ratios of times."""
    lines = [
        "| network | test accuracy (%) | worst - best seed | time / OTTT's | weights (bytes) | all stored (bytes) |",
        "|---|---|---|---|---|---|",
    ]
    runs = by_rule(rows)
    for rule, mine in runs.items():
        ratios = [a["seconds_per_epoch"] / b["seconds_per_epoch"] for a, b in zip(mine, runs["ottt"], strict=True)]
        time = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
        accuracy = f"{percent(mine, 'test_accuracy')} | {span(mine, 'test_accuracy')}"
        lines.append(f"| {rule} | {accuracy} | {time} | {mine[0]['weight_bytes']:,} | {mine[0]['stored_bytes']:,} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    accuracies = run(cases(), measure)
    times = run({name: {**options, "epochs": 1} for name, options in cases().items()}, epoch_time)
    rows = [accuracy | seconds for accuracy, seconds in zip(accuracies, times, strict=True)]
    write("empf", rows, table(rows))
