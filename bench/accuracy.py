"""Accuracies of `fastsnn train` over five seeds, as tables of mean and spread; the scripts beside it say of what."""

from __future__ import annotations

import csv
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastsnn.recipes import Recipe
from fastsnn.train.experiment import Config, Experiment

SEEDS = range(5)
OUT = Path(__file__).parent / "results"
Row = dict[str, Any]


def train(seed: int, **options: Any) -> Experiment:
    """A finished run with the command's defaults and these options, or of a recipe with these fields."""
    config = Recipe(seed=seed, **options) if "model" in options else Config.of(seed=seed, **options)
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(config, Path(folder))
        experiment.run()
    return experiment


def outcome(experiment: Experiment) -> Row:
    """Final accuracy of a run."""
    config, last = experiment.config, experiment.progress.epochs[-1]
    row: Row = {"mode": config.mode, "seed": config.seed, "epochs": config.epochs}
    return row | {name: round(last[name], 6) for name in ("train_accuracy", "test_accuracy")}


def run(
    cases: Mapping[str, Row],
    measure: Callable[[Experiment], Row] = outcome,
    learn: Callable[..., Experiment] | None = None,
) -> list[Row]:
    """Every case, options of `learn` (else `train`), with every seed: `measure` of each run, beside its name. The cases
    alternate, so that a change of the machine's load meets them all; the rows are in the cases' order."""
    rows = []
    for seed in SEEDS:
        for name, options in cases.items():
            rows.append({"rule": name, **measure((learn or train)(seed, **options))})
            print(rows[-1], flush=True)
    return sorted(rows, key=lambda row: list(cases).index(row["rule"]))


def by_rule(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each case."""
    return {rule: [row for row in rows if row["rule"] == rule] for rule in dict.fromkeys(row["rule"] for row in rows)}


def percent(rows: list[Row], name: str) -> str:
    """Mean and standard deviation over the seeds."""
    values = [100 * row[name] for row in rows]
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def span(rows: list[Row], name: str) -> str:
    """Worst and best seed, in percent."""
    values = [100 * row[name] for row in rows]
    return f"{min(values):.2f} - {max(values):.2f}"


def table(rows: list[Row]) -> str:
    """Mean and standard deviation over the seeds, in percent."""
    lines = ["| rule | mode | test accuracy (%) | worst - best seed | train accuracy (%) |", "|---|---|---|---|---|"]
    for rule, mine in by_rule(rows).items():
        test, train = percent(mine, "test_accuracy"), percent(mine, "train_accuracy")
        lines.append(f"| {rule} | {mine[0]['mode']} | {test} | {span(mine, 'test_accuracy')} | {train} |")
    return "\n".join(lines) + "\n"


def write(name: str, rows: list[Row], shown: str) -> None:
    """NAME.csv, one row a run, and NAME.md, a table."""
    OUT.mkdir(exist_ok=True)
    with (OUT / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (OUT / f"{name}.md").write_text(shown)
    print(shown)


def compare(cases: Mapping[str, Row], name: str, learn: Callable[..., Experiment] | None = None) -> None:
    """Runs every case with every seed and writes NAME.csv and NAME.md."""
    rows = run(cases, learn=learn)
    write(name, rows, table(rows))
